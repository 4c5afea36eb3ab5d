static int original(int x)
{
    return x;
}

static int (*hook)(int) = original;
static int (*saved)(int);
static int (*saved_again)(int);

static int mine(int x)
{
    return saved(x) + 1;
}

static int further(int x)
{
    return saved_again(x) - 1;
}

static void hook_up(void)
{
    saved = hook;
    hook = mine;
}

static void hook_further(void)
{
    saved_again = hook;
    hook = further;
}

int main(void)
{
    hook_up();
    hook_further();
    return hook(0);
}
