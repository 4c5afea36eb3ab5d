struct ops {
    int (*open)(int);
};

static int open_it(int x)
{
    return x;
}

static struct ops get_ops(void)
{
    struct ops ops = { open_it };

    return ops;
}

int main(void)
{
    struct ops kept = get_ops();

    return get_ops().open(0) + kept.open(0);
}
