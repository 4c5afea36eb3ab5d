int one(int x);
int two(int x);

int main(void)
{
    return two(one(0));
}
