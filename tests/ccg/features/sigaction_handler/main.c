#include <signal.h>
#include <string.h>

static volatile int seen;
static void handle(int number) { seen = number; }

int main(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handle;
    sigaction(SIGUSR1, &action, 0);
    raise(SIGUSR1);
    return seen != SIGUSR1;
}
