struct motor {
    int id;
    struct {
        int (*up)(int);
        int (*down)(int);
    };
    int (*stay)(int);
};

static int up(int x)
{
    return x + 1;
}

static int down(int x)
{
    return x - 1;
}

static int stay(int x)
{
    return x;
}

static struct motor braced = { 1, { up, down }, stay };
static struct motor named = { .id = 2, .up = up, .down = down, .stay = stay };

int main(void)
{
    return braced.up(-1) + named.down(1) + named.stay(0) + braced.stay(0);
}
