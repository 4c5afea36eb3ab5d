struct device {
    int id;
    int (*start)(int);
    const char *name;
    int (*stop)(int);
};

static int start(int id)
{
    return id;
}

static int stop(int id)
{
    return -id;
}

static struct device device = { 3, start, "disk", stop };

int main(void)
{
    return device.start(device.id) + device.stop(device.id);
}
