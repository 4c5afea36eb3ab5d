#include <string.h>

struct command {
    const char *name;
    int is_info;
    union {
        int (*cmd)(int argument);
        int (*info)(void);
    };
};

static int do_eject(int argument)
{
    return argument;
}

static int info_block(void)
{
    return 0;
}

static const struct command commands[] = {
    { .name = "eject", .cmd = do_eject },
    { .name = "block", .is_info = 1, .info = info_block },
    { 0 },
};

static int dispatch(const char *name)
{
    const struct command *c;

    for (c = commands; c->name; c++) {
        if (!strcmp(c->name, name)) {
            return c->is_info ? c->info() : c->cmd(0);
        }
    }
    return 1;
}

int main(void)
{
    return dispatch("eject") + dispatch("block");
}
