#include "registry.h"

static int probe(void)
{
    return 1;
}

static struct device floppy = { "floppy", probe };

static void __attribute__((constructor)) setup(void)
{
    device_register(&floppy);
}
