static int marks;

static void mark(int bit)
{
    marks |= bit;
}

__attribute__((constructor(200))) static void early(void)
{
    mark(1);
}

static void __attribute__((__constructor__)) late(void)
{
    mark(2);
}

static void declared(void) __attribute__((constructor));

static void declared(void)
{
    mark(4);
}

int main(void)
{
    return marks - 7;
}
