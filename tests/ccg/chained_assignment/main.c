struct holder {
    int (*f)(void);
};

static int target(void)
{
    return 0;
}

static int by_field(const struct holder *holder)
{
    return holder->f();
}

int main(void)
{
    struct holder holder;
    int (*a)(void), (*b)(void);

    a = b = holder.f = target;
    return a() + b() + by_field(&holder);
}
