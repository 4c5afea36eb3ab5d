static int target(void) { return 0; }

int main(void)
{
    int (*call)(void) = target;
    return call();
}
