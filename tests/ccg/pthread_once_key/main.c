#include <pthread.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static int released;

static void release(void *value)
{
    released++;
}

static void init(void)
{
    pthread_key_create(&key, release);
}

static void *body(void *opaque)
{
    pthread_setspecific(key, &key);
    return 0;
}

int main(void)
{
    pthread_t thread;

    pthread_once(&once, init);
    pthread_create(&thread, 0, body, 0);
    pthread_join(thread, 0);
    return released - 1;
}
