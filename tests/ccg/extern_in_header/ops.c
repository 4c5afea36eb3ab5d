#include "ops.h"

static int on_prepare(int x)
{
    return x + 1;
}

static int on_finish(int x)
{
    return x - 1;
}

const struct ops default_ops = {
    .prepare = on_prepare,
    .finish = on_finish,
};

const struct ops *current_ops = &default_ops;
