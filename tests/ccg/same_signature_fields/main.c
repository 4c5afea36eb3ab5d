struct file {
    int (*read)(int);
    int (*write)(int);
};

struct pipe {
    int (*write)(int);
    int (*read)(int);
};

static int file_read(int x)
{
    return x;
}

static int file_write(int x)
{
    return -x;
}

static int pipe_read(int x)
{
    return x - 1;
}

static int use_file(struct file *f)
{
    return f->read(1) + f->write(1);
}

static int use_pipe(struct pipe *p)
{
    return p->read(1);
}

int main(void)
{
    struct file file = { file_read, file_write };
    struct pipe pipe = { .read = pipe_read };

    return use_file(&file) + use_pipe(&pipe);
}
