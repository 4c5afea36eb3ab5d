struct slot {
    void *pointer;
};

static struct slot slot;

static int answer(int x)
{
    return x - 42;
}

static void put(void *pointer)
{
    slot.pointer = pointer;
}

static int get_and_call(int x)
{
    int (*f)(int) = (int (*)(int))slot.pointer;

    return f(x);
}

int main(void)
{
    put((void *)answer);
    return get_and_call(42);
}
