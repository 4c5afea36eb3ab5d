struct command { const char *name; union { int (*info)(void); int (*act)(int); } handler; };
static int info(void) { return 0; }
static int act(int x) { return x; }
static const struct command a = { .name = "i", .handler.info = info }, b = { "a", { .act = act } };

int main(void) { return a.handler.info() + b.handler.act(0); }
