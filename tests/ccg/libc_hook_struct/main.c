#define _GNU_SOURCE
#include <stdio.h>

static ssize_t cookie_read(void *cookie, char *buffer, size_t size)
{
    return 0;
}

static int cookie_close(void *cookie)
{
    return 0;
}

static FILE *open_cookie(void)
{
    cookie_io_functions_t functions = { .read = cookie_read, .close = cookie_close };

    return fopencookie(0, "r", functions);
}

static int take(FILE *file)
{
    return getc(file) != EOF;
}

int main(void)
{
    FILE *file = open_cookie();
    int result = take(file);

    fclose(file);
    return result;
}
