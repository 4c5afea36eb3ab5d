struct ops {
    int (*go)(int);
    int (*halt)(int);
};

static int go(int x)
{
    return x;
}

static int halt(int x)
{
    return -x;
}

static int even(int x)
{
    return x;
}

static int odd(int x)
{
    return x;
}

static int drive(const struct ops *ops, int x)
{
    return ops->go(x) + ops->halt(x);
}

int main(int argc, char **argv)
{
    int result = drive(&(struct ops){ .halt = halt, .go = go }, 2);

    return result + ((int (*[])(int)){ even, odd })[argc > 1](0);
}
