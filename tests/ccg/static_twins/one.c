static int helper(int x)
{
    return x + 1;
}

int one(int x)
{
    return helper(x);
}
