struct pair {
    int weight;
    int (*weigh)(int);
};

struct box {
    int (*steps[2])(int);
    struct pair pair;
    int (*last)(int);
};

static int a(int x)
{
    return x + 1;
}

static int b(int x)
{
    return x + 2;
}

static int c(int x)
{
    return x - 2;
}

static int d(int x)
{
    return x - 1;
}

static struct box boxes[] = { a, b, 7, c, d };

int main(void)
{
    struct box *box = &boxes[0];
    int x = 0;

    for (int i = 0; i < 2; i++) {
        x = box->steps[i](x);
    }
    x = box->pair.weigh(x);
    return box->last(x);
}
