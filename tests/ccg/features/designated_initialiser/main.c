struct ops { int size; int (*open)(void); int (*close)(void); };
static int my_open(void) { return 0; }
static int my_close(void) { return 0; }
static const struct ops ops = { .close = my_close, .open = my_open };

int main(void) { return ops.open() + ops.close(); }
