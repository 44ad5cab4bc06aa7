/* supervisor/base/histogram.c -- see kv/histogram.h. */
#include "kv/histogram.h"

#define MS 1000000u
#define S 1000000000u

const struct kv_histogram_shape kv_histogram_times = {
    17,
    {50000, 100000, 250000, 500000, MS, 2500000, 5 * MS, 10 * MS, 25 * MS, 50 * MS, 100 * MS, 250 * MS, 500 * MS, S,
     2500000000u, 5 * (uint64_t)S, 10 * (uint64_t)S},
};

const struct kv_histogram_shape kv_histogram_counts = {
    13,
    {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 8192, 65536},
};

const struct kv_histogram_shape kv_histogram_bytes = {
    12,
    {4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288, 1048576, 4194304, 67108864, 268435456},
};

unsigned kv_histogram_bucket(const struct kv_histogram_shape *shape, uint64_t value)
{
    unsigned bucket = 0;
    while (bucket < shape->bound_count && value > shape->bounds[bucket])
        bucket++;
    return bucket;
}

void kv_histogram_add(struct kv_histogram *histogram, const struct kv_histogram_shape *shape, uint64_t value)
{
    histogram->buckets[kv_histogram_bucket(shape, value)]++;
    histogram->sum += value;
}

void kv_histogram_merge(struct kv_histogram *histogram, const struct kv_histogram *more)
{
    for (unsigned i = 0; i <= KV_HISTOGRAM_BOUNDS_MAX; i++)
        histogram->buckets[i] += more->buckets[i];
    histogram->sum += more->sum;
}
