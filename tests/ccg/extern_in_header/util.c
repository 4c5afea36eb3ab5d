#include "ops.h"

int prepare(int x)
{
    return current_ops->prepare(x);
}
