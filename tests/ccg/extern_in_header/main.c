#include "ops.h"

int main(void)
{
    return default_ops.finish(prepare(0));
}
