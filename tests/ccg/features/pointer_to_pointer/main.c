static int target(void) { return 0; }
static void find(int (**out)(void)) { *out = target; }

int main(void)
{
    int (*call)(void);
    find(&call);
    return call();
}
