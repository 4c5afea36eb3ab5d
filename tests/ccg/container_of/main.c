#include <stddef.h>

#define container_of(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

struct timer {
    void (*expire)(struct timer *timer);
};

struct screen {
    int lines;
    void (*refresh)(struct screen *screen);
    struct timer timer;
};

static void refresh(struct screen *screen)
{
    screen->lines = 0;
}

static void on_timer(struct timer *timer)
{
    struct screen *screen = container_of(timer, struct screen, timer);

    screen->refresh(screen);
}

static void notify(struct timer *timer)
{
    timer->expire(timer);
}

int main(void)
{
    struct screen screen = { 25, refresh, { on_timer } };

    notify(&screen.timer);
    return screen.lines;
}
