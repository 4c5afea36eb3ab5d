static int target(void) { return 0; }

int main(void)
{
    int (*call)(void) = ({ int n = 0; (void)n; target; });
    return call();
}
