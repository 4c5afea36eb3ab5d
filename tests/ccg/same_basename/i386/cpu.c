static int decode(void)
{
    return 1;
}

static int (*table[])(void) = { decode };

int i386_step(void)
{
    return table[0]();
}
