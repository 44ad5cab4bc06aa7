/* router/metrics_internal.h -- what metrics.c (counting), metrics_page.c and metrics_shards.c (telling) share. Nobody else
 * includes it. */
#ifndef KV_ROUTER_METRICS_INTERNAL_H
#define KV_ROUTER_METRICS_INTERNAL_H

#include "kv/histogram.h"
#include "metrics.h"

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
    X(417)                                                                                                             \
    X(429)                                                                                                             \
    X(431)                                                                                                             \
    X(500)                                                                                                             \
    X(503)                                                                                                             \
    X(504)                                                                                                             \
    X(507)

enum {
#define X(...) +1
    METRICS_STATUS_COUNT = METRICS_STATUSES(X) + 1,
#undef X
    METRICS_METHOD_COUNT = 6,
    METRICS_SHARD_VALUES = 256,
};

struct metrics_thread {
    kv_counter requests[METRICS_METHOD_COUNT][METRICS_STATUS_COUNT];
    kv_counter latency[METRICS_OPERATION_COUNT][KV_HISTOGRAM_WORDS]; /* kv_histogram_times; the last word is the sum */
    kv_counter transactions[KV_ERR_COUNT];
    kv_counter counters[METRICS_COUNTER_COUNT];
    kv_counter ops[METRICS_OP_COUNT];
    kv_counter auth_failures[METRICS_AUTH_FAILURE_COUNT];
    kv_counter gauges[METRICS_GAUGE_COUNT];
    kv_counter calls_sent[KV_SHARDS_MAX];
    kv_counter calls_waiting[KV_SHARDS_MAX];
};

struct metrics {
    kv_counter layout;
    kv_counter cpu_us_before; /* of the routers before this one */
    kv_counter cpu_us_told;
    kv_counter shard_values[KV_SHARDS_MAX][METRICS_SHARD_VALUES]; /* reported last, as metrics_shards.c numbers them */
    struct metrics_thread threads[KV_ROUTER_THREADS_MAX];
};

/* A number that changes when what a region holds changes its place or meaning. */
uint64_t metrics_layout(void);
uint64_t metrics_shards_layout(void); /* its part */

/* Takes over what the shards reported and writes all that is theirs, the contract's totals first. */
void metrics_write_shards(const struct metrics_view *view, struct kv_buf *out);

#endif
