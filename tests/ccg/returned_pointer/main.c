static int plus(int x)
{
    return x + 1;
}

static int minus(int x)
{
    return x - 1;
}

static int (*choose(int negative))(int)
{
    if (negative) {
        return minus;
    }
    return plus;
}

int main(void)
{
    int (*f)(int) = choose(0);

    return f(0) + choose(1)(0);
}
