#include <stdlib.h>

static int state;

static void restore(void)
{
    state = 0;
}

static void farewell(void)
{
    state = 2;
}

static void setup(void)
{
    atexit(restore);
    atexit(farewell);
    state = 1;
}

static void die(void)
{
    exit(0);
}

int main(void)
{
    setup();
    die();
    return 1;
}
