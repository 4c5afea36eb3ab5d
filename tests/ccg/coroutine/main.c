#include <ucontext.h>

static ucontext_t outside, inside;
static char stack[65536];
static int steps;

static void step(void)
{
    steps++;
}

static void body(int times)
{
    while (times--) {
        step();
    }
}

static void enter(int times)
{
    getcontext(&inside);
    inside.uc_stack.ss_sp = stack;
    inside.uc_stack.ss_size = sizeof(stack);
    inside.uc_link = &outside;
    makecontext(&inside, (void (*)(void))body, 1, times);
    swapcontext(&outside, &inside);
}

int main(void)
{
    enter(3);
    return steps - 3;
}
