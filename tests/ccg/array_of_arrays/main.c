typedef int access_fn(int address);

static int read8(int address)
{
    return address;
}

static int read16(int address)
{
    return address & ~1;
}

static int write8(int address)
{
    return address;
}

static int write16(int address)
{
    return address & ~1;
}

static access_fn *const accesses[2][2] = {
    { read8, read16 },
    { write8, write16 },
};

static int access(int write, int size, int address)
{
    return accesses[write][size >> 1](address);
}

int main(void)
{
    return access(0, 1, 0) + access(1, 2, 1);
}
