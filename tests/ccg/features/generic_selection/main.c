static int whole(int x) { return x; }
static double broken(double x) { return x; }
#define PICK(x) _Generic((x), int: whole, double: broken)(x)

int main(void) { return PICK(0) + (int)PICK(0.0); }
