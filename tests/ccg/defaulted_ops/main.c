struct driver {
    int (*read)(int);
    int (*write)(int);
};

static int own_read(int x)
{
    return x;
}

static int emulated_write(int x)
{
    return -x;
}

static struct driver driver = { .read = own_read };

static void register_driver(struct driver *d)
{
    if (!d->write) {
        d->write = emulated_write;
    }
}

static int use(struct driver *d)
{
    return d->read(1) + d->write(1);
}

int main(void)
{
    register_driver(&driver);
    return use(&driver);
}
