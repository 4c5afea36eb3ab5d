int platform_init(void)
{
    return 0;
}
