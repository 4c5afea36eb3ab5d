struct ops {
    int (*read)(void);
};

static int read_disk(void)
{
    return 1;
}

static int read_net(void)
{
    return -1;
}

static const struct ops disk = { read_disk };
static const struct ops net = { read_net };

static int use_disk(void)
{
    return disk.read();
}

static int use_net(void)
{
    return net.read();
}

int main(void)
{
    return use_disk() + use_net();
}
