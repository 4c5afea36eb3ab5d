struct ops { int size; int (*open)(void); int (*close)(void); };
static int my_open(void) { return 0; }
static int my_close(void) { return 0; }
static const struct ops ops = { 3, my_open, my_close };

int main(void) { return ops.open() + ops.close(); }
