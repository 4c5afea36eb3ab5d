#define SUFFIX b
#include "template.h"
#define SUFFIX w
#include "template.h"

int main(void) { return load_b() + load_w(); }
