static int inner(void) { return 0; }
static int outer(int x) { return x; }
static int (*in)(void) = inner;
static int (*out)(int) = outer;

int main(void) { return out(in()); }
