struct ops { int (*run)(int); };
static int target(int x) { return x; }
static struct ops ops = { target };
#define INVOKE(o, method, ...) ((o)->method(__VA_ARGS__))

int main(void) { return INVOKE(&ops, run, 0); }
