static int target(int x) { return x; }
static int apply(int (*call)(int), int x) { return call(x); }

int main(void) { return apply(target, 0); }
