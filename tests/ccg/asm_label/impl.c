int open_64(int x)
{
    return x;
}
