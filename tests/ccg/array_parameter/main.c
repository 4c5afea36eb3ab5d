typedef int (*step)(int);

static int first(int x)
{
    return x + 1;
}

static int second(int x)
{
    return x + 2;
}

static int third(int x)
{
    return x - 3;
}

static void fill(step steps[], int at)
{
    steps[at] = third;
}

static int run(step steps[], int n, int x)
{
    for (int i = 0; i < n; i++) {
        x = steps[i](x);
    }
    return x;
}

int main(void)
{
    step steps[3] = { first, second };

    fill(steps, 2);
    return run(steps, 3, 0);
}
