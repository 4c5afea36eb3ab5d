#define _GNU_SOURCE
#include <dlfcn.h>

int plugin_init(int x)
{
    return x;
}

int main(void)
{
    int (*init)(int) = (int (*)(int))dlsym(RTLD_DEFAULT, "plugin_init");

    return init ? init(0) : 1;
}
