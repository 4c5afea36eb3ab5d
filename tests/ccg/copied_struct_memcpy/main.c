#include <string.h>

struct template {
    int volume;
    int (*play)(int volume);
};

struct sound {
    int volume;
    int (*sound)(int volume);
    int channel;
};

static int beep(int volume)
{
    return volume;
}

static const struct template template = { 0, beep };

static void dup(struct sound *sound)
{
    memset(sound, 0, sizeof(*sound));
    memcpy(sound, &template, sizeof(template));
}

int main(void)
{
    struct sound sound;

    dup(&sound);
    return sound.sound(sound.channel);
}
