struct sound {
    int volume;
    int (*play)(int volume);
};

static int beep(int volume)
{
    return volume;
}

int main(void)
{
    struct sound one = { 0, beep }, other;

    other = one;
    one.play = 0;
    return other.play(other.volume);
}
