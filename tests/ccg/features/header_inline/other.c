#include "shared.h"

int other(void) { return twice(0); }
