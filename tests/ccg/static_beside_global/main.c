int reset(int x);
int own(int x);

int main(void)
{
    return own(reset(0));
}
