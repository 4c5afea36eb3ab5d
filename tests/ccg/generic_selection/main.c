static int of_int(int x)
{
    return x;
}

static int of_string(const char *x)
{
    return x[0] - 'a';
}

static int of_long(long x)
{
    return (int)x;
}

static int of_double(double x)
{
    return x > 0;
}

#define SHOW(x) \
    _Generic((x), int: of_int, char *: of_string, double: of_double)(x)

int main(void)
{
    int (*f)(long) = _Generic(0L, long: of_long, default: of_int);

    return SHOW(0) + SHOW("a") + f(0);
}
