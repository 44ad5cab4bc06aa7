/* router/metrics_internal.h -- what metrics.c (counting) and metrics_page.c (telling) share. Nobody else includes it. */
#ifndef KV_ROUTER_METRICS_INTERNAL_H
#define KV_ROUTER_METRICS_INTERNAL_H

#include "metrics.h"

/* Upper bounds of the latency buckets, ascending; a last one takes the rest. */
#define METRICS_BUCKETS(X) /* nanoseconds  as a label */                                                               \
    X(50000, "0.00005")                                                                                                \
    X(100000, "0.0001")                                                                                                \
    X(250000, "0.00025")                                                                                               \
    X(500000, "0.0005")                                                                                                \
    X(1000000, "0.001")                                                                                                \
    X(2500000, "0.0025")                                                                                               \
    X(5000000, "0.005")                                                                                                \
    X(10000000, "0.01")                                                                                                \
    X(25000000, "0.025")                                                                                               \
    X(50000000, "0.05")                                                                                                \
    X(100000000, "0.1")                                                                                                \
    X(250000000, "0.25")                                                                                               \
    X(500000000, "0.5")                                                                                                \
    X(1000000000, "1")                                                                                                 \
    X(2500000000, "2.5")                                                                                               \
    X(5000000000, "5")                                                                                                 \
    X(10000000000, "10")

/* Statuses told apart; 0: no answer. Everything else is "other". */
#define METRICS_STATUSES(X)                                                                                            \
    X(0)                                                                                                               \
    X(200)                                                                                                             \
    X(201)                                                                                                             \
    X(204)                                                                                                             \
    X(206)                                                                                                             \
    X(304)                                                                                                             \
    X(400)                                                                                                             \
    X(401)                                                                                                             \
    X(403)                                                                                                             \
    X(404)                                                                                                             \
    X(405)                                                                                                             \
    X(408)                                                                                                             \
    X(412)                                                                                                             \
    X(413)                                                                                                             \
    X(414)                                                                                                             \
    X(415)                                                                                                             \
    X(416)                                                                                                             \
    X(429)                                                                                                             \
    X(431)                                                                                                             \
    X(500)                                                                                                             \
    X(503)                                                                                                             \
    X(504)                                                                                                             \
    X(507)

enum {
#define X(...) +1
    METRICS_BUCKET_COUNT = METRICS_BUCKETS(X) + 1,
    METRICS_STATUS_COUNT = METRICS_STATUSES(X) + 1,
#undef X
    METRICS_METHOD_COUNT = 6,
    METRICS_SHARD_VALUES = 128,
};

struct metrics_thread {
    kv_counter requests[METRICS_METHOD_COUNT][METRICS_STATUS_COUNT];
    kv_counter buckets[METRICS_OPERATION_COUNT][METRICS_BUCKET_COUNT]; /* each request in one of them */
    kv_counter took_ns[METRICS_OPERATION_COUNT];
    kv_counter transactions[KV_ERR_COUNT];
    kv_counter counters[METRICS_COUNTER_COUNT];
    kv_counter gauges[METRICS_GAUGE_COUNT];
};

struct metrics {
    kv_counter layout;
    kv_counter cpu_us_before; /* of the routers before this one */
    kv_counter cpu_us_told;
    kv_counter shard_values[KV_SHARDS_MAX]
                           [METRICS_SHARD_VALUES]; /* reported last, in the order of metrics_page.c's rows */
    struct metrics_thread threads[METRICS_THREADS_MAX];
};

/* A number that changes when what a region holds changes its place or meaning. */
uint64_t metrics_layout(void);

#endif
