#include <stddef.h>
static int standard(void) { return 0; }
static int special(void) { return 0; }
static int run(int (*call)(void))
{
    int (*chosen)(void) = call ?: standard;
    return chosen();
}

int main(void) { return run(NULL) + run(special); }
