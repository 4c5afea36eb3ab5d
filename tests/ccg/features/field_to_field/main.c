struct class { int (*init)(void); };
struct device { int (*start)(void); };
static int target(void) { return 0; }
static const struct class class = { target };

int main(void)
{
    struct device device;
    device.start = class.init;
    return device.start();
}
