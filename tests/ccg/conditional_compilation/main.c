static int configured(void)
{
    return 0;
}

static int unconfigured(void)
{
    return 1;
}

#ifdef CONFIG_FAST
static int backend(void)
{
    return configured() * 0;
}
#else
static int backend(void)
{
    return unconfigured();
}
#endif

int main(void)
{
#if CONFIG_FAST > 0
    return configured() + backend();
#else
    return unconfigured() + backend();
#endif
}
