#include <stdint.h>

static int target(void) { return 0; }

int main(void)
{
    uintptr_t kept = (uintptr_t)target;
    return ((int (*)(void))kept)();
}
