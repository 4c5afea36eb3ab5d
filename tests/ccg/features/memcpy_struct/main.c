#include <string.h>

struct ops { int (*run)(void); };
static int target(void) { return 0; }

int main(void)
{
    struct ops a = { target }, b;
    memcpy(&b, &a, sizeof b);
    return b.run();
}
