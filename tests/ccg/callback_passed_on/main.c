struct job {
    void (*cb)(int *result);
    int *result;
};

static void finished(int *result)
{
    *result = 0;
}

static void execute(struct job *job)
{
    job->cb(job->result);
}

static void queue(void (*done)(int *), int *result)
{
    struct job job = { .result = result };

    job.cb = done;
    execute(&job);
}

static void submit(int *result, void (*cb)(int *))
{
    queue(cb, result);
}

int main(void)
{
    int result = 1;

    submit(&result, finished);
    return result;
}
