#include <signal.h>

static volatile int seen;
static void handle(int number) { seen = number; }

int main(void)
{
    signal(SIGUSR1, handle);
    raise(SIGUSR1);
    return seen != SIGUSR1;
}
