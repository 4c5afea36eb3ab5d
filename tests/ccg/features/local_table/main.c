static int one(void) { return 0; }
static int two(void) { return 0; }

int main(void)
{
    static const struct { const char *name; int (*run)(void); } table[] = { { "one", one }, { "two", two } };
    return table[0].run() + table[1].run();
}
