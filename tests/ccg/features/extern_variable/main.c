extern int (*hook)(void);

int main(void) { return hook(); }
