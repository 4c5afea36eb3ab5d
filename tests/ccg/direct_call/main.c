static int add(int a, int b)
{
    return a + b;
}

static int twice(int x)
{
    return add(x, x);
}

static int negate(int x)
{
    return -x;
}

static int half(int x)
{
    return x / 2;
}

static int square(int x)
{
    return x * x;
}

int main(void)
{
    return twice(4) + (negate)(17) + (*half)(10) + (&square)(2);
}
