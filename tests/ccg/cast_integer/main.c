#include <stdint.h>

static uintptr_t entry;

static int target(void)
{
    return 0;
}

static int at_once(void)
{
    return 0;
}

static void remember(uintptr_t address)
{
    entry = address;
}

static int jump(void)
{
    return ((int (*)(void))entry)();
}

int main(void)
{
    uintptr_t here = (uintptr_t)at_once;

    remember((uintptr_t)target);
    return jump() + ((int (*)(void))here)();
}
