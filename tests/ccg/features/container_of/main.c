#include <stddef.h>
#define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))

struct base { int kind; };
struct derived { int (*run)(void); struct base base; };
static int target(void) { return 0; }
static int use(struct base *base) { return container_of(base, struct derived, base)->run(); }

int main(void)
{
    struct derived derived = { target, { 0 } };
    return use(&derived.base);
}
