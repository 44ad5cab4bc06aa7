/* include/kv/histogram.h -- how many measured values fell into each of a fixed row of buckets, and their sum.
 * Used by:  shards for their own work (shard/counters.h carries it over a restart), the router for requests and for the page of
 *           GET /metrics: both know the shapes, so only the numbers travel.
 * Not for threads: each has its own, or a lock. The count of all values is the sum of the buckets.
 * Implementation: supervisor/base/histogram.c. Tests: unit/base/test_histogram.c. */
#ifndef KV_HISTOGRAM_H
#define KV_HISTOGRAM_H

#include <stdint.h>

#define KV_HISTOGRAM_BOUNDS_MAX 17u
#define KV_HISTOGRAM_WORDS (KV_HISTOGRAM_BOUNDS_MAX + 2u) /* the buckets and the sum */

struct kv_histogram_shape {
    unsigned bound_count;
    uint64_t bounds[KV_HISTOGRAM_BOUNDS_MAX]; /* ascending, each within its bucket; one more bucket takes the rest */
};

extern const struct kv_histogram_shape kv_histogram_times;  /* nanoseconds: 50 µs to 10 s */
extern const struct kv_histogram_shape kv_histogram_counts; /* of things: 1 to 65,536 */
extern const struct kv_histogram_shape kv_histogram_bytes;  /* 4 KiB, a block, to 256 MiB */

struct kv_histogram {
    uint64_t buckets[KV_HISTOGRAM_BOUNDS_MAX + 1];
    uint64_t sum;
};

/* The bucket of a value: 0 to bound_count. */
unsigned kv_histogram_bucket(const struct kv_histogram_shape *shape, uint64_t value);
void kv_histogram_add(struct kv_histogram *histogram, const struct kv_histogram_shape *shape, uint64_t value);
/* Adds what `more` holds; of the same shape. */
void kv_histogram_merge(struct kv_histogram *histogram, const struct kv_histogram *more);

#endif
