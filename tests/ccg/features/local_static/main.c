static int target(void) { return 0; }

static int run(void)
{
    static int (*const call)(void) = target;
    return call();
}

int main(void) { return run(); }
