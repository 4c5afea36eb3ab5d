#include <stdlib.h>

struct notifier {
    void (*notify)(void *opaque);
    void *opaque;
    struct notifier *next;
};

static struct notifier *notifiers;

static void notify_add(void (*notify)(void *), void *opaque)
{
    struct notifier *n = malloc(sizeof(*n));

    n->notify = notify;
    n->opaque = opaque;
    n->next = notifiers;
    notifiers = n;
}

static void notify_all(void)
{
    while (notifiers) {
        struct notifier *n = notifiers;

        notifiers = n->next;
        n->notify(n->opaque);
        free(n);
    }
}

static void on_exit_a(void *opaque)
{
    *(int *)opaque += 1;
}

static void on_exit_b(void *opaque)
{
    *(int *)opaque -= 1;
}

int main(void)
{
    int sum = 0;

    notify_add(on_exit_a, &sum);
    notify_add(on_exit_b, &sum);
    notify_all();
    return sum;
}
