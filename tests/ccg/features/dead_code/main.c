static int leaf(void) { return 0; }
int unused(void) { return leaf(); }

int main(void) { return 0; }
