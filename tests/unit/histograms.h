/* tests/unit/histograms.h -- how many values a histogram has taken: the pages of the product show the buckets only. */
#ifndef KV_TEST_HISTOGRAMS_H
#define KV_TEST_HISTOGRAMS_H

#include "kv/histogram.h"

static inline uint64_t histogram_count(const struct kv_histogram *histogram)
{
    uint64_t count = 0;
    for (unsigned i = 0; i <= KV_HISTOGRAM_BOUNDS_MAX; i++)
        count += histogram->buckets[i];
    return count;
}

#endif
