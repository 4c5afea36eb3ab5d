static int always(void) { return 0; }
static int never(void) { return 0; }

int main(int argc, char **argv)
{
    (void)argv;
    return argc > 100 ? never() : always();
}
