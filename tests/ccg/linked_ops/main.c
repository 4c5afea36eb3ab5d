#include <string.h>

struct ops {
    int (*open)(void);
};

struct driver {
    const char *name;
    const struct ops *ops;
    struct driver *next;
};

static int open_file(void)
{
    return 0;
}

static int open_http(void)
{
    return 0;
}

static const struct ops file_ops = { open_file };
static const struct ops http_ops = { .open = open_http };
static struct driver http = { "http", &http_ops, 0 };
static struct driver file = { "file", &file_ops, &http };

static struct driver *find(struct driver *first, const char *name)
{
    while (first && strcmp(first->name, name)) {
        first = first->next;
    }
    return first;
}

int main(void)
{
    return find(&file, "file")->ops->open() + file.next->ops->open();
}
