struct closure {
    int (*function)(void *opaque);
    void *opaque;
};

static int act(void *opaque)
{
    return *(int *)opaque;
}

static int call(struct closure closure)
{
    return closure.function(closure.opaque);
}

int main(void)
{
    int zero = 0;

    return call((struct closure){ act, &zero });
}
