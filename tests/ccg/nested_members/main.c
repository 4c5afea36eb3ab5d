struct ops {
    int (*read)(void);
    int (*write)(void);
};

struct machine {
    int id;
    struct ops disk;
    struct ops net;
};

static int read_disk(void)
{
    return 1;
}

static int write_disk(void)
{
    return -1;
}

static int read_net(void)
{
    return 2;
}

static int write_net(void)
{
    return -2;
}

static struct machine machine = {
    .disk.read = read_disk,
    .disk.write = write_disk,
    .net = { read_net, write_net },
};

static int use_disk(struct machine *m)
{
    return m->disk.read() + m->disk.write();
}

static int use_net(struct machine *m)
{
    return m->net.read() + m->net.write();
}

int main(void)
{
    return use_disk(&machine) + use_net(&machine);
}
