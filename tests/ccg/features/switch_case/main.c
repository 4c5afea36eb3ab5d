enum { FIRST, SECOND };
static int first(void) { return 0; }
static int second(void) { return 0; }

static int handle(int what)
{
    switch (what) {
    case FIRST:
        return first();
    case SECOND:
        return second();
    }
    return 1;
}

int main(void) { return handle(FIRST) + handle(SECOND); }
