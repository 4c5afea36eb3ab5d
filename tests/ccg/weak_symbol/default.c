__attribute__((weak)) int platform_init(void)
{
    return 1;
}

__attribute__((weak)) int platform_name(void)
{
    return 0;
}
