typedef int (*fn)(int);

static int a(int x)
{
    return x + 1;
}

static int b(int x)
{
    return x + 2;
}

static int c(int x)
{
    return x - 3;
}

static const fn table[] = { a, b, c };

static int walk(int x)
{
    const fn *p = table;

    while (p < table + 3) {
        x = (*p++)(x);
    }
    return x;
}

static int at(int i, int x)
{
    return (*(table + i))(x);
}

static int turned(int i, int x)
{
    return i[table](x);
}

int main(void)
{
    return walk(0) + at(1, 0) + turned(2, 1);
}
