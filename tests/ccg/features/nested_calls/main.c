static int inner(void) { return 0; }
static int outer(int x) { return x; }

int main(void) { return outer(inner()); }
