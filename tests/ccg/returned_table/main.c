struct ops {
    int (*read)(int);
};

static int read_a(int x)
{
    return x;
}

static int read_b(int x)
{
    return -x;
}

static const struct ops table[] = { { read_a }, { read_b } };

static const struct ops *ops_for(int type)
{
    return &table[type];
}

int main(void)
{
    const struct ops *b = ops_for(1);

    return ops_for(0)->read(1) + b->read(1);
}
