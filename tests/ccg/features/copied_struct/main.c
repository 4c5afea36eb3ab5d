struct ops { int (*run)(void); };
static int target(void) { return 0; }

int main(void)
{
    struct ops a = { target }, b;
    b = a;
    return b.run();
}
