#define OPCODES(X) \
    X(load)        \
    X(store)       \
    X(jump)

#define NUMBER(name) OP_##name,
enum { OPCODES(NUMBER) OP_MAX };
#undef NUMBER

static int counts;

static void count(void)
{
    counts++;
}

#define BODY(name)             \
    static int op_##name(void) \
    {                          \
        count();               \
        return 0;              \
    }
OPCODES(BODY)
#undef BODY

#define ROW(name) [OP_##name] = op_##name,
static int (*const opcodes[OP_MAX])(void) = { OPCODES(ROW) };
#undef ROW

static int execute(int opcode)
{
    return opcodes[opcode]();
}

int main(void)
{
    return execute(OP_load) + execute(OP_jump) + counts - 2;
}
