static int target(int x) { return x; }

int main(void)
{
    void *kept = target;
    return ((int (*)(int))kept)(0);
}
