#include <stdlib.h>

static int by_value(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static void sort(int *values, int n)
{
    qsort(values, n, sizeof(*values), by_value);
}

int main(void)
{
    int values[] = { 3, 0, 2 };

    sort(values, 3);
    return values[0];
}
