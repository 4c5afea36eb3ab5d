#include <stdlib.h>

static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

int main(void)
{
    int numbers[] = { 2, 1, 3 };
    qsort(numbers, 3, sizeof numbers[0], compare);
    return numbers[0] - 1;
}
