static int measured(void)
{
    return 1;
}

static long typed(void)
{
    return 2;
}

static int real(void)
{
    return 0;
}

int main(void)
{
    __typeof__(typed()) value = sizeof(measured());

    return real() + (value != sizeof(int));
}
