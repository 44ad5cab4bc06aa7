/* router/gauges.c -- see gauges.h. */
#include "gauges.h"

#include "metrics.h"
#include "thread.h"

void gauges_read(struct router_thread *thread)
{
    struct backend_queues queues;
    backend_queues(thread->backend, &queues);
    metrics_set(thread->metrics, METRICS_GAUGE_REQUESTS_SHARDS, queues.requests);
    metrics_set(thread->metrics, METRICS_GAUGE_REQUESTS_CLIENTS, thread->unread);
    metrics_set(thread->metrics, METRICS_GAUGE_TRANSACTIONS, queues.transactions);
    metrics_set(thread->metrics, METRICS_GAUGE_CACHE_BYTES, cache_bytes(thread->cache));
    metrics_set(thread->metrics, METRICS_GAUGE_CACHE_ENTRIES, cache_entries(thread->cache));
    metrics_set(thread->metrics, METRICS_GAUGE_CACHE_FRAME_BYTES, frames_bytes(thread->frames));
    metrics_set(thread->metrics, METRICS_GAUGE_CACHE_FRAMES, frames_count(thread->frames));
    for (unsigned i = 0; i < queues.shard_count; i++)
        metrics_set_calls(thread->metrics, i, queues.shards[i].calls, queues.shards[i].answers);
}

static void on_tick(h2o_timeout_entry_t *entry)
{
    struct router_thread *thread = H2O_STRUCT_FROM_MEMBER(struct router_thread, gauges, entry);
    gauges_read(thread);
    h2o_timeout_link(thread->context.loop, &thread->context.hundred_ms_timeout, entry);
}

void gauges_start(struct router_thread *thread)
{
    thread->gauges.cb = on_tick;
    h2o_timeout_link(thread->context.loop, &thread->context.hundred_ms_timeout, &thread->gauges);
}
