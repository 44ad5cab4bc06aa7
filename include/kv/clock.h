/* include/kv/clock.h -- the two clocks, and waiting by the one that only grows. Code that decides takes times as
 * arguments; only rims read these. */
#ifndef KV_CLOCK_H
#define KV_CLOCK_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
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

/* pthread_cond_wait, but no longer than until this time of kv_clock_ns. False: it has come. */
static inline bool kv_clock_wait(pthread_cond_t *changed, pthread_mutex_t *mutex, uint64_t until_ns)
{
    struct timespec until = {(time_t)(until_ns / 1000000000u), (long)(until_ns % 1000000000u)};
    return pthread_cond_clockwait(changed, mutex, CLOCK_MONOTONIC, &until) != ETIMEDOUT;
}

/* Unix seconds, for X-Created-At and Last-Modified. */
static inline uint64_t kv_clock_unix_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec;
}

#endif
