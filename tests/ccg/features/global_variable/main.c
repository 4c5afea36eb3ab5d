static int target(void) { return 0; }
static int (*hook)(void);
static void set(void) { hook = target; }

int main(void)
{
    set();
    return hook();
}
