struct state {
    int (*handler)(void *opaque);
    void *opaque;
};

static int value;

static int found(void *opaque)
{
    return *(int *)opaque;
}

static int lookup(int key, int (**handler)(void *), void **opaque)
{
    if (key != 7) {
        return 0;
    }
    *handler = found;
    *opaque = &value;
    return 1;
}

int main(void)
{
    struct state state;

    return lookup(7, &state.handler, &state.opaque) ? state.handler(state.opaque) : 1;
}
