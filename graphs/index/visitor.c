/* What tree.py's visitor does, compiled: clang calls back a million times, and once more is once too often.
 * Built by visitor.py where a C compiler is at hand. The functions of libclang come as pointers: nothing is
 * included or linked. */
#include <stdlib.h>

typedef struct { int kind, extra; void *declaration, *statement, *unit; } Cursor;
typedef struct { void *manager[2]; unsigned number; } Location;

static struct {
    unsigned (*visit)(Cursor, int (*)(Cursor, Cursor, void *), void *);
    Cursor (*referenced)(Cursor);
    Location (*location)(Cursor);
} clang;

enum { BREAK, CONTINUE, RECURSE };
enum { PLAIN, LEAF, NAME, MEMBER, ACTION };
enum { KINDS = 1000, EXPRESSIONS = 100 };
static unsigned char classes[KINDS];

/* visitor.py's Columns has the same members. `end` is the node after a subtree. Of the nodes wanted: which
 * they are, what they refer to and where they stand, if they name something. */
typedef struct {
    long room, count, wanted, deep, failed;
    Cursor *cursor;
    void **target;
    int *kind, *parent, *end, *node;
    unsigned *number;
} Columns;

static int grow(Columns *t)
{
    long room = t->room ? 2 * t->room : 4096;
#define GROW(column) \
    do { \
        void *more = realloc(t->column, room * sizeof *t->column); \
        if (!more) \
            return 0; \
        t->column = more; \
    } while (0)
    GROW(cursor);
    GROW(target);
    GROW(kind);
    GROW(parent);
    GROW(end);
    GROW(node);
    GROW(number);
    t->room = room;
    return 1;
}

static int add(Columns *t, Cursor cursor, int parent)
{
    if (t->count == t->room && !grow(t)) {
        t->failed = 1;
        return 0;
    }
    t->cursor[t->count] = cursor;
    t->kind[t->count] = cursor.kind;
    t->parent[t->count] = parent;
    t->end[t->count] = t->count + 1;
    t->count++;
    return 1;
}

/* An expression is known by its statement, a declaration by itself. */
static void *identity(const Cursor *cursor)
{
    return cursor->kind >= EXPRESSIONS ? cursor->statement : cursor->declaration;
}

static int visit(Cursor cursor, Cursor parent, void *columns)
{
    Columns *t = columns;
    void *above = identity(&parent);
    int class = cursor.kind < KINDS ? classes[cursor.kind] : PLAIN;
    long here = t->count;

    /* Nodes come in preorder: the parent is the last one met, or one around it. */
    while (t->deep && identity(&t->cursor[t->deep]) != above) {
        t->end[t->deep] = here;
        t->deep = t->parent[t->deep];
    }
    if (!add(t, cursor, t->deep))
        return BREAK;
    if (class >= NAME) {
        int names = class != ACTION;
        t->node[t->wanted] = here;
        t->target[t->wanted] = names ? clang.referenced(cursor).declaration : NULL;
        t->number[t->wanted] = names ? clang.location(cursor).number : 0;
        t->wanted++;
    }
    if (class == LEAF || class == NAME)
        return CONTINUE;
    t->deep = here;
    return RECURSE;
}

static int list(Cursor cursor, Cursor parent, void *columns)
{
    Columns *t = columns;

    (void)parent;
    if (!add(t, cursor, 0))
        return BREAK;
    t->number[t->count - 1] = clang.location(cursor).number;
    return CONTINUE;
}

void studykvm_bind(void *visit_children, void *referenced, void *location, const unsigned char *kinds)
{
    clang.visit = visit_children;
    clang.referenced = referenced;
    clang.location = location;
    for (int i = 0; i < KINDS; i++)
        classes[i] = kinds[i];
}

/* Everything below a declaration, itself first. `failed` tells that memory ran out. */
void studykvm_tree(const Cursor *cursor, Columns *t)
{
    t->count = t->wanted = t->deep = t->failed = 0;
    if (!add(t, *cursor, -1))
        return;
    clang.visit(*cursor, visit, t);
    for (; t->deep > 0; t->deep = t->parent[t->deep])
        t->end[t->deep] = t->count;
    t->end[0] = t->count;
}

/* What is directly below a cursor, with `number` for each. */
void studykvm_list(const Cursor *cursor, Columns *t)
{
    t->count = t->wanted = t->failed = 0;
    clang.visit(*cursor, list, t);
}
