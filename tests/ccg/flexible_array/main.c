#include <stdlib.h>

struct list {
    int used;
    int (*callbacks[])(int);
};

static int one(int x)
{
    return x + 1;
}

static int two(int x)
{
    return x - 1;
}

static void add(struct list *list, int (*callback)(int))
{
    list->callbacks[list->used++] = callback;
}

static int fire(struct list *list, int x)
{
    for (int i = 0; i < list->used; i++) {
        x = list->callbacks[i](x);
    }
    return x;
}

int main(void)
{
    struct list *list = calloc(1, sizeof(*list) + 4 * sizeof(list->callbacks[0]));
    int x;

    add(list, one);
    add(list, two);
    x = fire(list, 0);
    free(list);
    return x;
}
