/* router/random.c -- see random.h. */
#include "random.h"

#include <sys/random.h>

#include "kv/log.h"

uint64_t random_seed(void)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        kv_fatal("the system has no random numbers: %m");
    return seed;
}
