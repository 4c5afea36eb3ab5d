struct ops {
    int (*op)(void);
};

static int live(void)
{
    return 0;
}

static int never(void)
{
    return 1;
}

static int behind_return(void)
{
    return 2;
}

static int hidden(void)
{
    return 3;
}

int nobody_calls(void)
{
    struct ops ops = { hidden };

    return live() + ops.op();
}

int main(void)
{
    if (0) {
        return never();
    }
    return live();
    return behind_return();
}
