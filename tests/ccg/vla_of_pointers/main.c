static int even(int i)
{
    return i;
}

static int odd(int i)
{
    return -i;
}

static int run(int n)
{
    int (*steps[n])(int);
    int sum = 0;

    for (int i = 0; i < n; i++) {
        steps[i] = i % 2 ? odd : even;
    }
    for (int i = 0; i < n; i++) {
        sum += steps[i](i);
    }
    return sum;
}

int main(void)
{
    return run(3) - 1;
}
