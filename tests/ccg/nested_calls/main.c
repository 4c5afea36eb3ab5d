typedef int (*fn)(int);

static int inner(int x)
{
    return x + 1;
}

static int outer(int x)
{
    return x - 3;
}

static int through(int x)
{
    return x + 1;
}

static int given(int x)
{
    return x + 1;
}

static fn pick(fn function)
{
    return function;
}

int main(void)
{
    fn f = through;
    fn (*p)(fn) = pick;

    return outer(p(given)(f(inner(0))));
}
