#include <pthread.h>

static __thread int (*current)(int);

static int helper(int x)
{
    return x;
}

static void *work(void *opaque)
{
    current = helper;
    *(int *)opaque = current(0);
    return 0;
}

int main(void)
{
    pthread_t thread;
    int result = 1;

    pthread_create(&thread, 0, work, &result);
    pthread_join(thread, 0);
    current = helper;
    return current(result);
}
