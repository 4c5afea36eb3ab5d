#include <stdarg.h>

static int target(void) { return 0; }
static int run(int n, ...)
{
    va_list ap;
    va_start(ap, n);
    int (*call)(void) = va_arg(ap, int (*)(void));
    va_end(ap);
    return call();
}

int main(void) { return run(1, target); }
