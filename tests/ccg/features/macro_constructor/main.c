static void (*inits[4])(void);
static int count, ran;
static void register_init(void (*init)(void)) { inits[count++] = init; }
#define driver_init(function) \
    static void __attribute__((constructor)) do_init_##function(void) { register_init(function); }

static void raw_init(void) { ran++; }
driver_init(raw_init)

int main(void)
{
    for (int i = 0; i < count; i++)
        inits[i]();
    return ran - 1;
}
