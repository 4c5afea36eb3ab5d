struct class {
    const char *name;
};

struct device_class {
    struct class parent;
    int (*realize)(struct class *class);
};

struct type {
    const char *name;
    void (*class_init)(struct class *class, void *data);
};

#define DEVICE_CLASS(class) ((struct device_class *)(class))

static int nic_realize(struct class *class)
{
    return class->name[0] - 'n';
}

static void nic_class_init(struct class *class, void *data)
{
    struct device_class *dc = DEVICE_CLASS(class);

    dc->realize = nic_realize;
}

static const struct type nic = { .name = "nic", .class_init = nic_class_init };

static void type_make(const struct type *type, struct class *class)
{
    class->name = type->name;
    type->class_init(class, 0);
}

static int realize(struct class *class)
{
    return DEVICE_CLASS(class)->realize(class);
}

int main(void)
{
    struct device_class class;

    type_make(&nic, &class.parent);
    return realize(&class.parent);
}
