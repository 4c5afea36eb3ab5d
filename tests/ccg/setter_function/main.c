#include <stdlib.h>

typedef int (*action)(int);

struct object {
    action action;
};

static void *object_new(void)
{
    return calloc(1, sizeof(struct object));
}

static void object_set(void *handle, action a)
{
    ((struct object *)handle)->action = a;
}

static action object_get(const void *handle)
{
    const struct object *object = handle;

    return object->action;
}

static int act(int x)
{
    return x;
}

int main(void)
{
    void *handle = object_new();
    int result;

    object_set(handle, act);
    result = object_get(handle)(0);
    free(handle);
    return result;
}
