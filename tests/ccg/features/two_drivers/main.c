struct driver { const char *name; int (*open)(void); };
static int raw_open(void) { return 0; }
static int qcow_open(void) { return 0; }
static struct driver raw = { "raw", raw_open }, qcow = { "qcow", qcow_open };
static int open_with(struct driver *drv) { return drv->open(); }

int main(void) { return open_with(&raw) + open_with(&qcow); }
