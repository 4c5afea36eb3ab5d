struct inner { int (*run)(void); };
struct outer { int size; struct inner inner; };
static int target(void) { return 0; }
static const struct outer outer = { .inner.run = target };

int main(void) { return outer.inner.run(); }
