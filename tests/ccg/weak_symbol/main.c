int platform_init(void);
int platform_name(void);

int main(void)
{
    return platform_init() + platform_name();
}
