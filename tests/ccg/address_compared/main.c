typedef void callback(void);

static callback *registered;
static int fired;

static void default_cb(void)
{
    fired = 5;
}

static void own(void)
{
    fired++;
}

static void register_cb(callback *cb)
{
    registered = cb;
}

static int is_default(callback *cb)
{
    return cb == default_cb || (unsigned long)cb % 4096 == (unsigned long)&default_cb % 4096;
}

static void fire(void)
{
    registered();
}

int main(void)
{
    register_cb(own);
    if (is_default(registered)) {
        return 1;
    }
    fire();
    return fired - 1;
}
