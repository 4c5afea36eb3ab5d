typedef int work(void);
typedef work *chooser(void);
static int target(void) { return 0; }
static work *choose(void) { return target; }
static chooser *how = choose;

int main(void) { return how()(); }
