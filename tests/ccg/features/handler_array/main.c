static int zero(void) { return 0; }
static int one(void) { return 1; }
static int (*const table[])(void) = { zero, one };

int main(void)
{
    int sum = 0;
    for (int i = 0; i < 2; i++)
        sum += table[i]();
    return sum - 1;
}
