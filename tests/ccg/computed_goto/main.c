static int push(int x)
{
    return x + 1;
}

static int pop(int x)
{
    return x - 1;
}

static int interpret(const char *code)
{
    static void *const labels[] = { &&do_push, &&do_pop, &&do_end };
    int x = 0;

    goto *labels[(int)*code];
do_push:
    x = push(x);
    goto *labels[(int)*++code];
do_pop:
    x = pop(x);
    goto *labels[(int)*++code];
do_end:
    return x;
}

int main(void)
{
    return interpret("\0\1\2");
}
