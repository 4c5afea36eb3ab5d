#include <stdarg.h>

typedef int step(int x);

static int first(int x)
{
    return x + 1;
}

static int second(int x)
{
    return x + 2;
}

static int third(int x)
{
    return x - 3;
}

static int run_all(int x, ...)
{
    va_list steps;
    step *next;

    va_start(steps, x);
    while ((next = va_arg(steps, step *))) {
        x = next(x);
    }
    va_end(steps);
    return x;
}

static int vrun(int x, va_list steps)
{
    step *next = va_arg(steps, step *);

    return next(x);
}

static int forward(int x, ...)
{
    va_list steps;

    va_start(steps, x);
    x = vrun(x, steps);
    va_end(steps);
    return x;
}

int main(void)
{
    return forward(run_all(0, first, second, (step *)0), third);
}
