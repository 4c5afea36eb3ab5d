typedef int (*fn)(int);

static int f(int x)
{
    return x;
}

static int g(int x)
{
    return -x;
}

static _Atomic(fn) typed;
static fn plain;

static int by_type(void)
{
    typed = f;
    return typed(1);
}

static int by_builtin(void)
{
    __atomic_store_n(&plain, g, __ATOMIC_SEQ_CST);
    return __atomic_load_n(&plain, __ATOMIC_SEQ_CST)(1);
}

int main(void)
{
    return by_type() + by_builtin();
}
