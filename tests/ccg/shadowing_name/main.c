int read_it(int x)
{
    return x + 5;
}

static int other(int x)
{
    return x;
}

struct ops {
    int (*read_it)(int);
};

static int by_local(void)
{
    int (*read_it)(int) = other;

    return read_it(0);
}

static int by_parameter(int (*read_it)(int))
{
    return read_it(0);
}

static int by_field(struct ops *ops)
{
    return ops->read_it(0);
}

int main(void)
{
    struct ops ops = { other };

    return by_local() + by_parameter(other) + by_field(&ops);
}
