static int notes;

static void note(void)
{
    notes++;
}

static inline __attribute__((always_inline)) int apply(int (*f)(int), int x)
{
    note();
    return f(x);
}

static int work(int x)
{
    return x;
}

int main(void)
{
    return apply(work, 0) + notes - 1;
}
