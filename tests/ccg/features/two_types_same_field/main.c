struct a { int (*run)(void); };
struct b { int (*run)(void); };
static int of_a(void) { return 0; }
static int of_b(void) { return 0; }
static struct a a = { of_a };
static struct b b = { of_b };
static int use_a(void) { return a.run(); }
static int use_b(void) { return b.run(); }

int main(void) { return use_a() + use_b(); }
