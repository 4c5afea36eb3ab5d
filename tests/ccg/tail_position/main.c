struct chain {
    int (*next)(int x);
};

static int third(int x)
{
    return x ? third(x - 1) : x;
}

static struct chain chain = { third };

static int second(int x)
{
    return chain.next(x);
}

static int first(int x)
{
    return second(x + 1);
}

int main(void)
{
    return first(2);
}
