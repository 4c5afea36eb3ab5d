#include <stddef.h>
#include <pthread.h>

static int work(void) { return 0; }
static void *body(void *opaque) { return (void *)(long)work(); }

int main(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, body, NULL);
    return pthread_join(thread, NULL);
}
