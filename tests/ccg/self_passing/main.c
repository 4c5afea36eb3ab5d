typedef int finish(int x);
typedef int step(int x, finish *then);

static int last(int x)
{
    return x;
}

static int middle(int x, finish *then)
{
    return then(x - 1);
}

static int start(int x, step *next, finish *then)
{
    return next(x, then);
}

int main(void)
{
    return start(1, middle, last);
}
