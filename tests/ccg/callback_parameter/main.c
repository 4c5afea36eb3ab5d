static int add(int x)
{
    return x + 1;
}

static int drop(int x)
{
    return x - 1;
}

static int each(int n, int (*visit)(int))
{
    int x = 0;

    while (n--) {
        x = visit(x);
    }
    return x;
}

static int first(void)
{
    return each(3, add);
}

static int second(void)
{
    return each(3, drop);
}

int main(void)
{
    return first() + second();
}
