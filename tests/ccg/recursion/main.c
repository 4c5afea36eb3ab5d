static int factorial(int n)
{
    return n < 2 ? 1 : n * factorial(n - 1);
}

typedef int again(int n, void *self);

static int countdown(int n, void *self)
{
    return n ? ((again *)self)(n - 1, self) : 0;
}

int main(void)
{
    return factorial(3) - 6 + countdown(3, (void *)countdown);
}
