int (*before_hook)(int);
int (*after_hook)(int);

static int before(int x)
{
    return x;
}

static int after(int x)
{
    return x - 1;
}

static int step(int x)
{
    if (before_hook) {
        x = before_hook(x);
    }
    x++;
    return after_hook ? after_hook(x) : x;
}

int main(int argc, char **argv)
{
    int (*unused)(int) = before;

    after_hook = after;
    if (argc > 1) {
        return unused(argc);
    }
    return step(0);
}
