static int outside(int x)
{
    return x + 1;
}

static int inside(int x)
{
    return x - 1;
}

static int inner_block(int x)
{
    int (*f)(int) = inside;

    return f(x);
}

static int outer_block(int x)
{
    int (*f)(int) = outside;

    {
        int f = inner_block(x);

        x = f;
    }
    return f(x);
}

int main(void)
{
    return outer_block(0);
}
