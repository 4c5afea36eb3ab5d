#include <string.h>

struct command { const char *name; int (*run)(void); };
static int help(void) { return 0; }
static int quit(void) { return 0; }
static const struct command commands[] = { { "help", help }, { .name = "quit", .run = quit }, { 0 } };

static int dispatch(const char *name)
{
    for (const struct command *c = commands; c->name; c++)
        if (!strcmp(c->name, name))
            return c->run();
    return 1;
}

int main(void) { return dispatch("help") + dispatch("quit"); }
