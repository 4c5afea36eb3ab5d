static int target(int x) { return x; }

int main(void)
{
    void *kept = (void *)target;
    int (*call)(int) = (int (*)(int))kept;
    return call(0);
}
