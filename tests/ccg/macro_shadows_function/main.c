static int get(int x)
{
    return x;
}

static int other(int x)
{
    return x;
}

int direct_only(void)
{
    return get(1);
}

#define get(x) other(x)

int main(void)
{
    return (get)(0) + get(0);
}
