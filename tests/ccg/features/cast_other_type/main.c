static int target(int *x) { return *x; }
static int apply(int (*call)(void *), void *x) { return call(x); }

int main(void)
{
    int zero = 0;
    return apply((int (*)(void *))target, &zero);
}
