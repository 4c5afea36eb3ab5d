static int target(void) { return 0; }
int (*hook)(void) = target;
