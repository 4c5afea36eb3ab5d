static int on_read(int x)
{
    return x;
}

static int on_write(int x)
{
    return -x;
}

static int on_flush(int x)
{
    return x * 2;
}

static int (*const handlers[])(int) = { on_read, on_write, on_flush };

static int handle(int request, int x)
{
    return handlers[request](x);
}

int main(void)
{
    return handle(0, 5) + handle(1, 5);
}
