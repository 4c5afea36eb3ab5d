struct channel {
    unsigned can_dma : 1;
    unsigned : 3;
    unsigned busy : 2;
    int (*dma)(int n);
    unsigned : 0;
    unsigned irq : 4;
    int (*pio)(int n);
};

static int dma(int n)
{
    return n;
}

static int pio(int n)
{
    return -n;
}

static struct channel fast = { 1, 0, dma, 7, pio };
static struct channel slow = { 0, 1, 0, 5, pio };

static int transfer(const struct channel *c, int n)
{
    return c->can_dma ? c->dma(n) : c->pio(n);
}

int main(void)
{
    return transfer(&fast, 3) + transfer(&slow, 3);
}
