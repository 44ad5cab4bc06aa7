/* include/kv/counters_page.h -- the memory in which counters outlive the processes that count.
 * One memfd, made by the supervisor, handed to every child as KV_FD_COUNTERS and mapped by all of them. Each region has one
 * writer: the supervisor, one shard, or the router's threads, each its own part. A child that starts goes on from what its
 * predecessor left, so no counter goes back while the supervisor lives; nothing here is on disk.
 * Every number is a relaxed atomic: readers may see one counter a moment before another. What a region holds is its
 * writer's business (shard/counters.h, router/metrics.c), which also tells another layout from its own.
 * Implementation: supervisor/base/counters_page.c. Tests: unit/base/test_counters_page.c. */
#ifndef KV_COUNTERS_PAGE_H
#define KV_COUNTERS_PAGE_H

#include <stdatomic.h>
#include <stdint.h>

#include "kv/limits.h"

#define KV_COUNTERS_SHARD_WORDS 512u
#define KV_COUNTERS_ROUTER_WORDS 49152u /* 384 KiB: 64 threads of 6 KiB */

typedef _Atomic uint64_t kv_counter;

struct kv_counters_page {
    kv_counter shard_restarts[KV_SHARDS_MAX]; /* the supervisor's */
    kv_counter router_restarts;
    kv_counter supervisor_fds; /* open descriptors */
    kv_counter supervisor_spare[494];
    kv_counter shards[KV_SHARDS_MAX][KV_COUNTERS_SHARD_WORDS];
    kv_counter router[KV_COUNTERS_ROUTER_WORDS];
};

/* A new, zeroed page; -1 when the system has none to give (errno). */
int kv_counters_page_new(void);
/* Maps the page behind `fd`. When there is none (a process started by hand, a test) the memory is private to the process
 * and lives as long as it does; never NULL. */
struct kv_counters_page *kv_counters_page_open(int fd);

/* For the one writer of a counter: cheaper than an atomic addition. */
static inline void kv_counter_add(kv_counter *counter, uint64_t more)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more, memory_order_relaxed);
}

static inline void kv_counter_set(kv_counter *counter, uint64_t value)
{
    atomic_store_explicit(counter, value, memory_order_relaxed);
}

static inline uint64_t kv_counter_get(const kv_counter *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

#endif
