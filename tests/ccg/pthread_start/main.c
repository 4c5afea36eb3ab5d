#include <pthread.h>

struct worker {
    void *(*body)(void *);
    int touched;
};

static void touch(struct worker *worker)
{
    worker->touched++;
}

static void *reader(void *opaque)
{
    touch(opaque);
    return 0;
}

static void *writer(void *opaque)
{
    touch(opaque);
    return 0;
}

static void spawn(pthread_t *thread, struct worker *worker)
{
    pthread_create(thread, 0, worker->body, worker);
}

int main(void)
{
    struct worker first = { 0 }, second = { .body = writer };
    pthread_t threads[2];

    pthread_create(&threads[0], 0, reader, &first);
    spawn(&threads[1], &second);
    pthread_join(threads[0], 0);
    pthread_join(threads[1], 0);
    return first.touched + second.touched - 2;
}
