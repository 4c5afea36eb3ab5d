struct three {
    int (*first)(void);
    int (*second)(void);
    int (*third)(void);
};

static int a(void)
{
    return 1;
}

static int b(void)
{
    return 2;
}

static int c(void)
{
    return 3;
}

static int d(void)
{
    return -5;
}

static struct three three = { .first = a, .second = b, c, .first = d };

int main(void)
{
    return three.first() + three.second() + three.third();
}
