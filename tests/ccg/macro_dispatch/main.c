#define CALL_HOOK(device, name, ...) \
    ((device)->hooks.on_##name ? (device)->hooks.on_##name(__VA_ARGS__) : no_hook())

struct device {
    struct {
        int (*on_reset)(int);
        int (*on_stop)(int, int);
    } hooks;
};

static int no_hook(void)
{
    return 0;
}

static int own_reset(int x)
{
    return x;
}

int main(void)
{
    struct device device = { .hooks.on_reset = own_reset };

    return CALL_HOOK(&device, reset, 0) + CALL_HOOK(&device, stop, 1, 2);
}
