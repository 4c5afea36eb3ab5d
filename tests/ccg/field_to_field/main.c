struct driver {
    int (*receive)(int);
};

struct card {
    int (*on_packet)(int);
};

struct network {
    struct {
        int (*sink)(int);
    } peer;
};

static int target(int x)
{
    return x;
}

static const struct driver driver = { target };

static void attach(struct network *network, const struct driver *d)
{
    struct card card;

    card.on_packet = d->receive;
    network->peer.sink = card.on_packet;
}

static int deliver(struct network *network, int x)
{
    return network->peer.sink(x);
}

int main(void)
{
    struct network network;

    attach(&network, &driver);
    return deliver(&network, 0);
}
