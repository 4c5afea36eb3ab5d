typedef void handler(void *opaque);

struct request {
    int result;
    void (*complete)(struct request *request);
};

static handler *read_handler;
static void *read_opaque;

static void register_read(handler *h, void *opaque)
{
    read_handler = h;
    read_opaque = opaque;
}

static void poll_once(void)
{
    if (read_handler) {
        read_handler(read_opaque);
    }
}

static void done(struct request *request)
{
    request->result = 0;
}

static void on_readable(void *opaque)
{
    struct request *request = opaque;

    request->complete(request);
}

int main(void)
{
    struct request request = { .result = 1, .complete = done };

    register_read(on_readable, &request);
    poll_once();
    return request.result;
}
