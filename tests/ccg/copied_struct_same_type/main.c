#include <stdlib.h>
#include <string.h>

struct sound {
    int volume;
    int (*play)(int volume);
};

static int beep(int volume)
{
    return volume;
}

static struct sound *clone(const struct sound *sound)
{
    struct sound *copy = malloc(sizeof(*copy));

    return memcpy(copy, sound, sizeof(*copy));
}

int main(void)
{
    static const struct sound original = { 0, beep };
    struct sound *copy = clone(&original);
    int result = copy->play(copy->volume);

    free(copy);
    return result;
}
