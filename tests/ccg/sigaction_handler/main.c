#define _GNU_SOURCE
#include <signal.h>
#include <string.h>

static volatile sig_atomic_t hits;

static void on_user(int number)
{
    hits++;
}

static void on_info(int number, siginfo_t *info, void *context)
{
    hits++;
}

static void install(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof(action));
    action.sa_handler = on_user;
    sigaction(SIGUSR1, &action, NULL);
}

static void install_info(void)
{
    struct sigaction action = { .sa_sigaction = on_info, .sa_flags = SA_SIGINFO };

    sigaction(SIGUSR2, &action, NULL);
}

int main(void)
{
    install();
    install_info();
    raise(SIGUSR1);
    raise(SIGUSR2);
    return hits - 2;
}
