int real_open(int x)
{
    return x;
}

int old_open(int x) __attribute__((alias("real_open")));

struct ops {
    int (*open)(int);
};

static int run(const struct ops *ops)
{
    return ops->open(0);
}

int main(void)
{
    struct ops ops = { old_open };

    return old_open(0) + run(&ops);
}
