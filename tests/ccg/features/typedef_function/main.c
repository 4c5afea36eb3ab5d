typedef int work(int);
static work target;
static int target(int x) { return x; }
static int apply(work *call) { return call(0); }

int main(void) { return apply(target); }
