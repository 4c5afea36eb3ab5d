struct device {
    const char *name;
    int (*probe)(void);
    struct device *next;
};

void device_register(struct device *device);
int probe_all(void);
