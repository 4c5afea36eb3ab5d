int open_file(int x) __asm__("open_64");

int main(void)
{
    return open_file(0);
}
