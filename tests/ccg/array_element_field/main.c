struct slot {
    int number;
    int (*irq)(int number);
};

struct bus {
    int used;
    struct slot slots[4];
};

static int net_irq(int number)
{
    return number;
}

static int disk_irq(int number)
{
    return -number;
}

static void plug(struct bus *bus, int (*irq)(int))
{
    bus->slots[bus->used].number = 5;
    bus->slots[bus->used].irq = irq;
    bus->used++;
}

static int raise_all(struct bus *bus)
{
    int sum = 0;

    for (int i = 0; i < bus->used; i++) {
        sum += bus->slots[i].irq(bus->slots[i].number);
    }
    return sum;
}

int main(void)
{
    struct bus bus = { 0 };

    plug(&bus, net_irq);
    plug(&bus, disk_irq);
    return raise_all(&bus);
}
