struct phone {
    int (*bell)(int);
};

static inline int ring(const struct phone *phone, int x)
{
    return phone->bell(x);
}

inline int twice(int x)
{
    return 2 * x;
}

extern const struct phone phone;
int other(void);
