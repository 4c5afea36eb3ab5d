#include <string.h>

struct command {
    const char *name;
    int (*handler)(void);
};

static int help(void)
{
    return 0;
}

static int quit(void)
{
    return 0;
}

static int list(void)
{
    return 1;
}

static const struct command table[] = {
    { "help", help },
    { "list", list },
    { "quit", quit },
    { NULL, NULL },
};

static int run(const char *name)
{
    for (const struct command *c = table; c->name; c++) {
        if (strcmp(c->name, name) == 0) {
            return c->handler();
        }
    }
    return 2;
}

int main(void)
{
    return run("help") + run("quit");
}
