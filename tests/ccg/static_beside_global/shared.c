int reset(int x)
{
    return x + 1;
}
