#include <stdarg.h>

static int vsum(int n, va_list values)
{
    int sum = 0;

    while (n--) {
        sum += va_arg(values, int);
    }
    return sum;
}

static int sum(int n, ...)
{
    va_list values;
    int result;

    va_start(values, n);
    result = vsum(n, values);
    va_end(values);
    return result;
}

static int one(void)
{
    return 1;
}

int main(void)
{
    return sum(3, one(), one(), -2);
}
