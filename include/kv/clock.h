/* include/kv/clock.h -- the two clocks. Code that decides takes times as arguments; only rims read these. */
#ifndef KV_CLOCK_H
#define KV_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Milliseconds / nanoseconds that only grow; unrelated to the calendar. */
static inline uint64_t kv_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t kv_clock_ms(void)
{
    return kv_clock_ns() / 1000000u;
}

/* Unix seconds, for X-Created-At and Last-Modified. */
static inline uint64_t kv_clock_unix_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec;
}

#endif
