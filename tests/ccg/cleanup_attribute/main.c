#define GUARD __attribute__((cleanup(unlock)))

static int locked;

static int lock(void)
{
    return ++locked;
}

static void unlock(int *guard)
{
    locked--;
}

static int work(void)
{
    int guard GUARD = lock();

    return guard - 1;
}

int main(void)
{
    return work() + locked;
}
