static int calls;

static void log_call(void)
{
    calls++;
}

static int f(int x)
{
    return x;
}

static int g(int x)
{
    return -x;
}

int main(void)
{
    int x = (log_call(), f)(1);

    return x + (log_call(), g(1)) + calls - 2;
}
