#include <setjmp.h>

static jmp_buf handler;

static void fail(void)
{
    longjmp(handler, 1);
}

static int work(int x)
{
    if (x > 1) {
        fail();
    }
    return x;
}

static int recover(void)
{
    return 0;
}

static int try(int x)
{
    if (setjmp(handler)) {
        return recover();
    }
    return work(x);
}

int main(void)
{
    return try(0) + try(2);
}
