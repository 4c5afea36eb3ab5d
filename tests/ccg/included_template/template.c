#define GLUE_(a, b) a##b
#define GLUE(a, b) GLUE_(a, b)

static SIZE GLUE(slow, BITS)(int address)
{
    return (SIZE)fault(address);
}

static SIZE GLUE(load, BITS)(int address)
{
    return GLUE(slow, BITS)(address);
}

#undef GLUE
#undef GLUE_
#undef SIZE
#undef BITS
