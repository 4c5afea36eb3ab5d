static int is_odd(int n);

static int is_even(int n)
{
    return n == 0 ? 1 : is_odd(n - 1);
}

static int is_odd(int n)
{
    return n == 0 ? 0 : is_even(n - 1);
}

static int state_a(int left), state_b(int left), state_c(int left);

static int (*const states[])(int) = { state_a, state_b, state_c };
static int next = 1;

static int state_a(int left)
{
    next = 1;
    return left ? states[next](left - 1) : 0;
}

static int state_b(int left)
{
    next = 2;
    return left ? states[next](left - 1) : 0;
}

static int state_c(int left)
{
    next = 0;
    return left ? states[next](left - 1) : 0;
}

int main(void)
{
    return is_even(4) - 1 + state_a(5);
}
