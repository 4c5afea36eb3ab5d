struct command { int kind; union { int (*plain)(void); int (*with)(int); }; };
static int plain(void) { return 0; }
static int with(int x) { return x; }
static const struct command a = { 0, { .plain = plain } }, b = { .with = with };

int main(void) { return a.plain() + b.with(0); }
