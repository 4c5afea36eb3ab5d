static int yes(void) { return 0; }
static int no(void) { return 0; }

int main(void)
{
    int sum = 0;
    for (int i = 0; i < 2; i++)
        sum += (i ? yes : no)();
    return sum;
}
