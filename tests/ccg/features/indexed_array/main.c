static int zero(void) { return 0; }
static int two(void) { return 0; }
static int (*const table[3])(void) = { [2] = two, [0] = zero };

int main(void) { return table[0]() + table[2](); }
