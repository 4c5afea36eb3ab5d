#include <signal.h>

static volatile sig_atomic_t hits;

static void on_signal(int number)
{
    hits++;
}

static void install(void)
{
    signal(SIGUSR1, on_signal);
}

static void stop(void)
{
    raise(SIGUSR1);
}

int main(void)
{
    install();
    stop();
    return hits - 1;
}
