struct shape {
    int (*area)(struct shape *shape);
};

struct circle {
    struct shape base;
    int radius;
    int (*scale)(int value);
};

struct square {
    struct shape base;
    int side;
};

static int scale(int value)
{
    return value * 3;
}

static int circle_area(struct shape *shape)
{
    struct circle *circle = (struct circle *)shape;

    return circle->scale(circle->radius * circle->radius);
}

static int square_area(struct shape *shape)
{
    struct square *square = (struct square *)shape;

    return -square->side * square->side;
}

static struct circle circle = { .base.area = circle_area, .radius = 0, .scale = scale };
static struct square square = { { square_area }, 0 };

static int area(struct shape *shape)
{
    return shape->area(shape);
}

int main(void)
{
    return area(&circle.base) + area((struct shape *)&square);
}
