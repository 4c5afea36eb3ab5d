static int known(int request)
{
    return request - 1;
}

static int fallback(int request)
{
    return request - 2;
}

static int (*handlers[4])(int) = { 0, known };

static int serve(int request)
{
    int (*h)(int) = handlers[request];

    return (h ? h : fallback)(request);
}

static int serve_short(int request)
{
    return (handlers[request] ?: fallback)(request);
}

int main(void)
{
    return serve(1) + serve(2) + serve_short(1);
}
