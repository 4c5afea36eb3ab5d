int main(void)
{
    int inside(void);
    return inside();
}

int inside(void) { return 0; }
