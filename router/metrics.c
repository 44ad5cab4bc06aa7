/* router/metrics.c -- see metrics.h. This file: counting. */
#include "metrics_internal.h"

#include <string.h>

#include "kv/log.h"

_Static_assert(sizeof(struct metrics) <= sizeof(((struct kv_counters_page *)0)->router), "the router's region is full");

struct metrics *metrics_open(struct kv_counters_page *page)
{
    struct metrics *metrics = (struct metrics *)(void *)page->router;
    if (kv_counter_get(&metrics->layout) != metrics_layout())
        memset((void *)metrics, 0, sizeof(*metrics)); /* nobody else looks: the last router is gone */
    for (unsigned i = 0; i < KV_ROUTER_THREADS_MAX; i++) {
        for (unsigned gauge = 0; gauge < METRICS_GAUGE_COUNT; gauge++)
            kv_counter_set(&metrics->threads[i].gauges[gauge], 0);
        for (unsigned shard = 0; shard < KV_SHARDS_MAX; shard++)
            metrics_set_calls(&metrics->threads[i], shard, 0, true);
    }
    kv_counter_set(&metrics->cpu_us_before, kv_counter_get(&metrics->cpu_us_told));
    kv_counter_set(&metrics->layout, metrics_layout());
    return metrics;
}

struct metrics_thread *metrics_of_thread(struct metrics *metrics, unsigned thread_index)
{
    kv_assert(thread_index < KV_ROUTER_THREADS_MAX);
    return &metrics->threads[thread_index];
}

static unsigned status_index(int status)
{
    static const int statuses[] = {
#define X(number) number,
        METRICS_STATUSES(X)
#undef X
    };
    unsigned i = 0;
    while (i < METRICS_STATUS_COUNT - 1 && statuses[i] != status)
        i++;
    return i;
}

/* Methods are bits: 0, 1, 2, 4, 8, 16. */
static unsigned method_index(enum http_method method)
{
    unsigned index = 0;
    for (unsigned bit = (unsigned)method; bit != 0; bit >>= 1)
        index++;
    return index;
}

void metrics_request(struct metrics_thread *slot, enum http_method method, enum metrics_operation operation, int status,
                     uint64_t took_ns)
{
    kv_counter_add(&slot->requests[method_index(method)][status_index(status)], 1);
    kv_counter_add(&slot->latency[operation][kv_histogram_bucket(&kv_histogram_times, took_ns)], 1);
    kv_counter_add(&slot->latency[operation][KV_HISTOGRAM_WORDS - 1], took_ns);
}

void metrics_add(struct metrics_thread *slot, enum metrics_counter counter, uint64_t more)
{
    kv_counter_add(&slot->counters[counter], more);
}

void metrics_op(struct metrics_thread *slot, enum metrics_op op, uint64_t more)
{
    kv_counter_add(&slot->ops[op], more);
}

void metrics_set(struct metrics_thread *slot, enum metrics_gauge gauge, uint64_t value)
{
    kv_counter_set(&slot->gauges[gauge], value);
}

void metrics_set_calls(struct metrics_thread *slot, unsigned shard_index, uint64_t calls, bool answers)
{
    kv_counter_set(&slot->calls_sent[shard_index], answers ? calls : 0);
    kv_counter_set(&slot->calls_waiting[shard_index], answers ? 0 : calls);
}

void metrics_transaction(struct metrics_thread *slot, enum kv_err err)
{
    kv_counter_add(&slot->transactions[err < KV_ERR_COUNT ? err : KV_IO], 1);
}

void metrics_auth_failure(struct metrics_thread *slot, enum metrics_auth_failure reason)
{
    kv_counter_add(&slot->auth_failures[reason], 1);
}
