#include <stddef.h>
struct ops { int (*run)(void); };
static struct ops ops;

int main(void) { return ops.run ? ops.run() : 0; }
