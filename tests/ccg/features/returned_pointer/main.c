static int target(void) { return 0; }
static int (*choose(void))(void) { return target; }

int main(void) { return choose()(); }
