#include <stdlib.h>

struct order {
    int (*compare)(const void *a, const void *b);
};

static int ascending(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static int descending(const void *a, const void *b)
{
    return *(const int *)b - *(const int *)a;
}

static int lookup(const struct order *order, int key)
{
    static const int values[] = { 1, 4, 9 };
    const int *found = bsearch(&key, values, 3, sizeof(values[0]), order->compare);

    return found ? *found : -1;
}

int main(int argc, char **argv)
{
    struct order order = { argc > 1 ? descending : ascending };

    return lookup(&order, 4) - 4;
}
