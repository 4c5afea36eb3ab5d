typedef int (*work)(void);
struct machine { work steps[2]; };
static int one(void) { return 0; }
static int two(void) { return 0; }
static struct machine machine = { { one, two } };

int main(void) { return machine.steps[0]() + machine.steps[1](); }
