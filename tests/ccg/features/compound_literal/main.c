struct ops { int (*run)(void); };
static int target(void) { return 0; }
static int use(const struct ops *ops) { return ops->run(); }

int main(void) { return use(&(struct ops){ target }); }
