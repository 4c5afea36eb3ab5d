#include "module.h"

struct entry {
    void (*init)(void);
};

static struct entry entries[8];
static int count;
int drivers;

void register_module(void (*init)(void))
{
    entries[count++].init = init;
}

static void call_init(void)
{
    for (int i = 0; i < count; i++) {
        entries[i].init();
    }
}

static void raw_init(void)
{
    drivers++;
}

block_init(raw_init);

static void cow_init(void)
{
    drivers++;
}

block_init(cow_init);

int main(void)
{
    call_init();
    return drivers - 2;
}
