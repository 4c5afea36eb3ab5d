#include <stddef.h>
typedef void handler(void *);
struct entry { handler *call; void *opaque; struct entry *next; };
static struct entry *first;
static int ticks;
static void tick(void *opaque) { ticks += *(int *)opaque; }

static void add(struct entry *e, handler *call, void *opaque)
{
    e->call = call;
    e->opaque = opaque;
    e->next = first;
    first = e;
}

static void run(void)
{
    for (struct entry *e = first; e; e = e->next)
        e->call(e->opaque);
}

int main(void)
{
    static struct entry entry;
    int one = 1;
    add(&entry, tick, &one);
    run();
    return ticks - 1;
}
