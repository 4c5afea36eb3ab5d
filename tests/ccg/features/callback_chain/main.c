static int target(void) { return 0; }
static int last(int (*call)(void)) { return call(); }
static int first(int (*call)(void)) { return last(call); }

int main(void) { return first(target); }
