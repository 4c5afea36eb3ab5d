static int target(void) { return 0; }
#define SAFE(x) ({ int value_ = (x); value_; })

int main(void) { return SAFE(target()); }
