static int slow(int x)
{
    return x + 1;
}

static int fast(int x)
{
    return x - 1;
}

static int (*clock)(int) = slow;

static void switch_over(void)
{
    clock = fast;
}

static int tick(int x)
{
    return clock(x);
}

int main(void)
{
    int x = tick(0);

    switch_over();
    return tick(x);
}
