typedef int (*callback_t)(int);
typedef callback_t hook_t;
typedef struct {
    hook_t hook;
} hooks_t;

static int work(int x)
{
    return x;
}

static int rest(int x)
{
    return -x;
}

static int invoke(hook_t hook, int x)
{
    return hook(x);
}

int main(void)
{
    hooks_t hooks = { rest };
    callback_t local = work;

    return invoke(work, 1) + hooks.hook(1) + local(0);
}
