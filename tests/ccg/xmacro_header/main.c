#include <string.h>

#define OPTION(name, function) static int function(const char *own);
#include "options.def"
#undef OPTION

static const struct option {
    const char *name;
    int (*function)(const char *own);
} options[] = {
#define OPTION(name, function) { name, function },
#include "options.def"
#undef OPTION
    { 0 },
};

static int opt_help(const char *own)
{
    return own[0] - 'h';
}

static int opt_version(const char *own)
{
    return own[0] - 'v';
}

static int parse(const char *word)
{
    for (const struct option *o = options; o->name; o++) {
        if (!strcmp(o->name, word)) {
            return o->function(o->name);
        }
    }
    return 1;
}

int main(void)
{
    return parse("help") + parse("version");
}
