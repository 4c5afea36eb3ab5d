typedef void destroy(void *object);

struct file {
    int open;
};

static destroy *free_function;

static void close_file(struct file *file)
{
    file->open = 0;
}

static void set_free(destroy *function)
{
    free_function = function;
}

static void release(void *object)
{
    free_function(object);
}

int main(void)
{
    struct file file = { 1 };

    set_free((destroy *)close_file);
    release(&file);
    return file.open;
}
