enum { OPEN = 1, CLOSE = 2 };

static int on_open(void)
{
    return 1;
}

static int on_close(void)
{
    return -1;
}

static int on_other(void)
{
    return 5;
}

static void log_open(int result)
{
}

static void log_close(int result)
{
}

static int dispatch(int request)
{
    void (*log)(int) = 0;
    int result;

    switch (request) {
    case OPEN:
        result = on_open();
        log = log_open;
        break;
    case CLOSE:
        log = log_close;
        result = on_close();
        break;
    default:
        return on_other();
    }
    log(result);
    return result;
}

int main(void)
{
    return dispatch(OPEN) + dispatch(CLOSE);
}
