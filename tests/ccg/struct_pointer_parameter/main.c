struct work {
    int (*run)(struct work *work);
    int left;
};

static int job(struct work *work)
{
    return --work->left;
}

static void fill(struct work *w)
{
    w->run = &job;
    w->left = 1;
}

static int inner(struct work *task)
{
    return (*task->run)(task);
}

static int outer(struct work *work)
{
    return inner(work);
}

int main(void)
{
    struct work work;

    fill(&work);
    return outer(&work);
}
