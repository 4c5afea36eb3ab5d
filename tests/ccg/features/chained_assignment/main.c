static int target(void) { return 0; }

int main(void)
{
    int (*a)(void), (*b)(void);
    a = b = target;
    return a() + b();
}
