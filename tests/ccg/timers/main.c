#include <stdlib.h>

struct timer {
    void (*cb)(void *opaque);
    void *opaque;
    long expires;
    struct timer *next;
};

static struct timer *active;
static struct timer *vga;
static int refreshed, updated;

static struct timer *timer_new(void (*cb)(void *), void *opaque)
{
    struct timer *t = calloc(1, sizeof(*t));

    t->cb = cb;
    t->opaque = opaque;
    return t;
}

static void timer_mod(struct timer *t, long expires)
{
    struct timer **at = &active;

    while (*at && (*at)->expires <= expires) {
        at = &(*at)->next;
    }
    t->expires = expires;
    t->next = *at;
    *at = t;
}

static void run_timers(long now)
{
    while (active && active->expires <= now) {
        struct timer *t = active;

        active = t->next;
        t->next = 0;
        t->cb(t->opaque);
    }
}

static void vga_refresh(void *opaque)
{
    if (++refreshed < 3) {
        timer_mod(vga, refreshed);
    }
}

static void rtc_update(void *opaque)
{
    updated++;
}

int main(void)
{
    struct timer *rtc = timer_new(rtc_update, 0);

    vga = timer_new(vga_refresh, 0);
    timer_mod(rtc, 1);
    timer_mod(vga, 0);
    run_timers(10);
    free(rtc);
    free(vga);
    return refreshed + updated - 4;
}
