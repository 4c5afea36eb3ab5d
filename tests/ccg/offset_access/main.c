#include <stddef.h>

typedef int (*fn)(int);

struct device {
    int id;
    fn on_change;
    fn on_remove;
};

struct property {
    const char *name;
    size_t offset;
};

static const struct property properties[] = {
    { "change", offsetof(struct device, on_change) },
    { "remove", offsetof(struct device, on_remove) },
};

static int changed(int x)
{
    return x - 1;
}

static int removed(int x)
{
    return -x;
}

static void set(void *object, const struct property *property, fn function)
{
    *(fn *)((char *)object + property->offset) = function;
}

static int call(void *object, const struct property *property, int x)
{
    return (*(fn *)((char *)object + property->offset))(x);
}

int main(void)
{
    struct device device = { .on_remove = removed };

    set(&device, &properties[0], changed);
    return device.on_change(1) + call(&device, &properties[1], 0);
}
