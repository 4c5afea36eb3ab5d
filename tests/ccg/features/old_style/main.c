static int target(x) int x; { return x; }
static int (*call)() = target;

int main(void) { return call(0); }
