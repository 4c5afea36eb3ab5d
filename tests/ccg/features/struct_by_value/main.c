struct ops { int (*run)(void); };
static int target(void) { return 0; }
static struct ops make(void) { return (struct ops){ .run = target }; }
static int use(struct ops ops) { return ops.run(); }

int main(void) { return use(make()); }
