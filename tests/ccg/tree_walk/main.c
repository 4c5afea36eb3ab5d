#include <search.h>

static int sum;

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static void visit(const void *node, VISIT order, int level)
{
    if (order == leaf || order == postorder) {
        sum += **(const int *const *)node;
    }
}

static void insert(void **root, int *value)
{
    tsearch(value, root, compare);
}

int main(void)
{
    static int values[] = { 2, -3, 1 };
    void *root = 0;

    for (int i = 0; i < 3; i++) {
        insert(&root, &values[i]);
    }
    twalk(root, visit);
    return sum;
}
