/* tests/sim/random.h -- the one source of chance: splitmix64 (Steele, Lea, Flood 2014), so that a seed is a whole run. */
#ifndef SIM_RANDOM_H
#define SIM_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_next(struct random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 0 to n - 1; n at least 1. */
static inline uint64_t random_below(struct random *random, uint64_t n)
{
    return (random_next(random) >> 11) % n;
}

static inline uint64_t random_between(struct random *random, uint64_t low, uint64_t high)
{
    return low + random_below(random, high - low + 1);
}

static inline bool random_chance(struct random *random, uint64_t per_mille)
{
    return random_below(random, 1000) < per_mille;
}

#endif
