static int add_plain(int a, int b)
{
    return a + b;
}

static int add_fast(int a, int b)
{
    return b + a;
}

static int fast_cpu;

static int (*resolve_add(void))(int, int)
{
    return fast_cpu ? add_fast : add_plain;
}

int add(int a, int b) __attribute__((ifunc("resolve_add")));

int main(void)
{
    return add(1, -1);
}
