#define GLUE_(a, b) a##b
#define GLUE(a, b) GLUE_(a, b)
#define PREFIX cpu_
#define CALL(name, x) GLUE(PREFIX, name)(x)
#define CHECKED(call) check(call)
#define WITH(f, x) f(x, load)

static int cpu_load(int x)
{
    return x + 1;
}

static int cpu_store(int x)
{
    return x - 1;
}

static int check(int x)
{
    return x;
}

#define STORE_AFTER(x, first) CALL(store, CALL(first, x))

int main(void)
{
    return CHECKED(WITH(STORE_AFTER, 0));
}
