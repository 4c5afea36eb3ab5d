union value {
    long number;
    int (*function)(int);
    int (*entry)(int);
};

static int plain(int x)
{
    return x;
}

static int punned(int x)
{
    return -x;
}

static int through_same(int x)
{
    union value value = { .function = plain };

    return value.function(x);
}

static int through_other(int x)
{
    union value value;

    value.number = (long)punned;
    return value.entry(x);
}

int main(void)
{
    return through_same(1) + through_other(1);
}
