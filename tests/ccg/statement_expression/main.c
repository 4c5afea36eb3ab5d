#define MEASURED(call)       \
    ({                       \
        int result_ = call;  \
        result_ + check(0);  \
    })

static int check(int x)
{
    return x;
}

static int measured(int x)
{
    return x;
}

static int even(int x)
{
    return x & 1;
}

static int odd(int x)
{
    return !(x & 1);
}

int main(void)
{
    int sum = MEASURED(measured(0));

    for (int i = 0; i < 2; i++) {
        sum += ({
            int (*f)(int) = even;

            if (i & 1) {
                f = odd;
            }
            f;
        })(i);
    }
    return sum;
}
