typedef int step(int x);
typedef step *factory(void);

static int fast(int x)
{
    return x + 2;
}

static int slow(int x)
{
    return x - 2;
}

static step *make_fast(void)
{
    return fast;
}

static step *make_slow(void)
{
    return &slow;
}

static int run(factory *make, int x)
{
    return make()(x);
}

int main(void)
{
    return run(make_slow, run(make_fast, 0));
}
