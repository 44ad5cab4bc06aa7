/* router/random.h -- random numbers that need not be secret: seeds of hash tables, request ids, lengths of pauses.
 * Fails:    a system without random numbers: fatal.
 * Tests:    unit/router/test_random.c. */
#ifndef KV_ROUTER_RANDOM_H
#define KV_ROUTER_RANDOM_H

#include <stdint.h>

/* 64 bits from the kernel. */
uint64_t random_seed(void);

/* splitmix64 (Vigna): any state is a good seed, and the same seed gives the same numbers, which the simulation relies on. */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

#endif
