static int fault(int n)
{
    return n - 2;
}

static int zero(int n)
{
    return n;
}

static int many(int n)
{
    return n - 6;
}

static int (*vectors[8])(int) = {
    [2] = fault,
    [0] = zero,
    [4 ... 7] = many,
};

int main(void)
{
    int sum = 0;

    for (int i = 0; i < 7; i += 2) {
        if (vectors[i]) {
            sum += vectors[i](i);
        }
    }
    return sum + 2;
}
