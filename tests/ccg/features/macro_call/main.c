static int target(int x) { return x; }
#define CALL(x) target(x)

int main(void) { return CALL(0); }
