static int yes(int x)
{
    return x;
}

static int no(int x)
{
    return -x;
}

static int pick(int condition, int x)
{
    return (condition ? yes : no)(x);
}

static int apply(int (*f)(int), int x)
{
    return f(x);
}

int main(int argc, char **argv)
{
    return pick(1, 3) + pick(0, 3) + apply(argc > 1 ? yes : no, 0);
}
