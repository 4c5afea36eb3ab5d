int i386_step(void);
int arm_step(void);

int main(void)
{
    return i386_step() + arm_step();
}
