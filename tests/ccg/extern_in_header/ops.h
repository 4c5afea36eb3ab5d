struct ops {
    int (*prepare)(int);
    int (*finish)(int);
};

extern const struct ops *current_ops;
extern const struct ops default_ops;

int prepare(int x);
