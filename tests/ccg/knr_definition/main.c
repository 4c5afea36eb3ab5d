int apply();

int add(a, b)
    int a;
    int b;
{
    return a + b;
}

int main()
{
    return apply(add, 2, -2) + implicit(0);
}

int apply(f, a, b)
    int (*f)();
    int a, b;
{
    return (*f)(a, b);
}

int implicit(x)
{
    return x;
}
