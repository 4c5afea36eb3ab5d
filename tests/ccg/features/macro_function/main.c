static int target(void) { return 0; }
#define WRAP(name) static int wrap_##name(void) { return name(); }
WRAP(target)

int main(void) { return wrap_target(); }
