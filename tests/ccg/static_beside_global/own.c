static int reset(int x)
{
    return x - 1;
}

int own(int x)
{
    return reset(x);
}
