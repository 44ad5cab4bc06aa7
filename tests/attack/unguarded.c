/* tests/attack/unguarded.c -- linked to a router that is never shipped: the library as it came, to see what an attack does to it. */
#include "h2o_guard.h"

__attribute__((constructor)) static void disable_guard(void)
{
    h2o_guard_disable();
}
