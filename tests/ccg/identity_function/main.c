typedef int (*fn)(int);

static int f(int x)
{
    return x;
}

static int g(int x)
{
    return -x;
}

static fn checked(fn function)
{
    return function;
}

static int one(void)
{
    return checked(f)(1);
}

static int two(void)
{
    return checked(g)(1);
}

int main(void)
{
    return one() + two();
}
