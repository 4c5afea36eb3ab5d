static int helper(int x)
{
    return x - 1;
}

int two(int x)
{
    return helper(x);
}
