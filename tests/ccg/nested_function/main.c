static int each(int n, int (*visit)(int))
{
    int sum = 0;

    while (n--) {
        sum += visit(n);
    }
    return sum;
}

static int outer(int base)
{
    int inner(int x)
    {
        return x - base;
    }

    return inner(base) + each(3, inner);
}

int main(void)
{
    return outer(1);
}
