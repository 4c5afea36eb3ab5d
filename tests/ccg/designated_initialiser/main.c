struct driver {
    const char *name;
    int (*open)(int);
    int (*read)(int);
    int (*close)(int);
};

static int my_open(int x)
{
    return x + 1;
}

static int my_close(int x)
{
    return x - 1;
}

static const struct driver driver = {
    .close = my_close,
    .name = "mine",
    .open = my_open,
};

static int run(const struct driver *d)
{
    int x = d->open(0);

    if (d->read) {
        x = d->read(x);
    }
    return d->close(x);
}

int main(void)
{
    return run(&driver);
}
