#include "shared.h"

int other(void);

int main(void) { return twice(0) + other(); }
