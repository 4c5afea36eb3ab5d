typedef int handler(int code);

static handler on_key, on_mouse;

static int press(handler h, int code)
{
    return h(code);
}

int main(void)
{
    return press(on_key, 1) + press(on_mouse, 1);
}

static int on_key(int code)
{
    return code;
}

static int on_mouse(int code)
{
    return -code;
}
