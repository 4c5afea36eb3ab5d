#include "ring.h"

int main(void)
{
    return ring(&phone, -1) + other() + twice(0);
}
