static int a(int x)
{
    return x + 1;
}

static int b(int x)
{
    return x + 2;
}

static int c(int x)
{
    return x - 3;
}

static int choose(int x)
{
    int (*f)(int) = a;

    x = f(x);
    {
        int (*f)(int);
        int (*g)(int);

        f = b;
        g = f;
        x = g(x);
    }
    return x;
}

static int other(int x)
{
    static int (*f)(int);

    if (!f) {
        f = c;
    }
    return f(x);
}

int main(void)
{
    return other(choose(0));
}
