struct base { int (*run)(struct base *); };
struct derived { struct base base; int value; };
static int target(struct base *base) { return ((struct derived *)base)->value; }
static int use(struct base *base) { return base->run(base); }

int main(void)
{
    struct derived derived = { { target }, 0 };
    return use((struct base *)&derived);
}
