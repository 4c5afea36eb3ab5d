struct pair { int (*first)(void); int (*second)(void); };
struct outer { struct pair pair; int size; int (*last)(void); };
static int one(void) { return 0; }
static int two(void) { return 0; }
static int three(void) { return 0; }
static const struct outer outer = { one, two, 7, three };

int main(void) { return outer.pair.first() + outer.pair.second() + outer.last(); }
