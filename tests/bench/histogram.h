/* tests/bench/histogram.h -- latencies in buckets: 64 per doubling, so that a percentile is off by 1.6 % at most, from
 * nanoseconds to hours, in fixed memory and a few instructions per sample. */
#ifndef KV_BENCH_HISTOGRAM_H
#define KV_BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEPS 64u
#define HISTOGRAM_BUCKETS (HISTOGRAM_STEPS * 40u) /* 2^45 ns: ten hours */

/* Zero-initialised is empty. */
struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t count;
    uint64_t max_ns;
};

void histogram_add(struct histogram *histogram, uint64_t ns);
/* The latency that `share` (0 to 1) of the samples do not exceed, in nanoseconds; 0 without samples. */
uint64_t histogram_at(const struct histogram *histogram, double share);

#endif
