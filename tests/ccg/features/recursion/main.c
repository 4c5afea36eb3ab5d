static int fall(int n) { return n ? fall(n - 1) : 0; }

int main(void) { return fall(3); }
