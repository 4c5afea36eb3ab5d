static int is_a(int c)
{
    return c == 'a';
}

static int is_e(int c)
{
    return c == 'e';
}

static int is_zero(int c)
{
    return c == '0';
}

static int vowels(int c)
{
    static int (*const tests[])(int) = { is_a, is_e };

    return tests[0](c) + tests[1](c);
}

static int digits(int c)
{
    static int (*const tests[])(int) = { is_zero };

    return tests[0](c);
}

int main(void)
{
    return vowels('x') + digits('x');
}
