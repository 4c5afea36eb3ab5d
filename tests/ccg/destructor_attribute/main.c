static int dirty = 1;

static void flush(void)
{
    dirty = 0;
}

static void __attribute__((destructor)) farewell(void)
{
    flush();
}

int main(void)
{
    return 0;
}
