#include <stdarg.h>

static int sum(int n, ...)
{
    va_list ap;
    int out = 0;
    va_start(ap, n);
    while (n--)
        out += va_arg(ap, int);
    va_end(ap);
    return out;
}

int main(void)
{
    int (*call)(int, ...) = sum;
    return sum(1, 0) + call(2, 1, -1);
}
