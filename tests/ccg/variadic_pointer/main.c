#include <stdarg.h>

static int (*log_function)(const char *format, ...);

static int count_log(const char *format, ...)
{
    va_list values;
    int sum = 0;

    va_start(values, format);
    for (; *format; format++) {
        sum += va_arg(values, int);
    }
    va_end(values);
    return sum;
}

static void set_log(int (*function)(const char *, ...))
{
    log_function = function;
}

static int work(void)
{
    return log_function("ii", 2, -2);
}

int main(void)
{
    set_log(count_log);
    return work();
}
