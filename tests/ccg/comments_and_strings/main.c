static int real(void)
{
    return 0;
}

static int commented(void)
{
    return 1;
}

static int quoted(void)
{
    return 2;
}

static int switched_off(void)
{
    return 3;
}

static int swallowed(void)
{
    return 4;
}

#define DPRINTF(...) do { } while (0)

int main(void)
{
    const char *text = "quoted()";

    /* commented(); */
    // commented();
#if 0
    switched_off();
#endif
    DPRINTF("%d\n", swallowed());
    return real() + (text[0] != 'q');
}
