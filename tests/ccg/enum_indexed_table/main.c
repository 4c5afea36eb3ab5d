enum event { EVENT_RESET, EVENT_SUSPEND, EVENT_WAKE_UP, EVENT_MAX };

struct reaction {
    int priority;
    int (*react)(enum event event);
};

static int reset(enum event event)
{
    return event;
}

static int suspend(enum event event)
{
    return event;
}

static int wake_up(enum event event)
{
    return event - EVENT_WAKE_UP;
}

static struct reaction reactions[EVENT_MAX] = {
    [EVENT_WAKE_UP] = { 1, wake_up },
    [EVENT_RESET] = { .react = reset, .priority = 9 },
    [EVENT_SUSPEND].react = suspend,
};

static int fire(enum event event)
{
    return reactions[event].react(event);
}

int main(void)
{
    return fire(EVENT_RESET) + fire(EVENT_WAKE_UP);
}
