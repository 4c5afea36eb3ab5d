static int target(void) { return 0; }
static void fill(int (*table[])(void)) { table[1] = target; }

int main(void)
{
    int (*table[2])(void);
    fill(table);
    return table[1]();
}
