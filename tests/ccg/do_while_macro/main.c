#define TWICE(x)       \
    do {               \
        checked(x);    \
        checked(x);    \
    } while (0)

static int count;

static int next(void)
{
    return ++count;
}

static void checked(int x)
{
    count += x - x;
}

int main(void)
{
    TWICE(next());
    return count - 2;
}
