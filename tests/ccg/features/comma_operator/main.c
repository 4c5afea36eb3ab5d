static int target(void) { return 0; }

int main(void)
{
    int (*call)(void), n;
    call = (n = 1, target);
    return call() + n - 1;
}
