typedef int (*fn)(void);

static int left(void)
{
    return 1;
}

static int right(void)
{
    return -1;
}

static fn one = left, other = right;

static void swap(fn *a, fn *b)
{
    fn held = *a;

    *a = *b;
    *b = held;
}

static int use_left(void)
{
    return one();
}

static int use_right(void)
{
    return other();
}

int main(void)
{
    swap(&one, &other);
    return use_left() + use_right();
}
