typedef int (*fn)(int);

static int chosen(int x)
{
    return x;
}

static void install(fn *slot)
{
    *slot = chosen;
}

static int call(fn *slot, int x)
{
    return (*slot)(x);
}

int main(void)
{
    fn f = 0;

    install(&f);
    return call(&f, 1) - f(1);
}
