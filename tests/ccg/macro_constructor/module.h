void register_module(void (*init)(void));

#define block_init(function)                                               \
    static void __attribute__((constructor)) do_qemu_init_##function(void) \
    {                                                                      \
        register_module(function);                                         \
    }                                                                      \
    struct swallow_semicolon
