static int fault(int address)
{
    return address;
}

#define SIZE signed char
#define BITS 8
#include "template.c"

#define SIZE int
#define BITS 32
#include "template.c"

int main(void)
{
    return load8(1) - load32(1);
}
