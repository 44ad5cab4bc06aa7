/* router/backend_stats.c -- the counters of every shard that answers in time. */
#include "backend_internal.h"

#include "kv/clock.h"
#include "wire/messages.h"

struct counter_slot {
    struct stats_call *stats;
    struct call *call;
    struct kv_buf body;
};

struct stats_call {
    struct backend_call head;
    unsigned waiting;
    struct counter_slot slots[KV_SHARDS_MAX];
    backend_on_stats on_stats;
    void *arg;
};

static void stats_answer(struct stats_call *stats)
{
    struct backend *backend = stats->head.backend;
    struct kv_slice bodies[KV_SHARDS_MAX];
    for (unsigned i = 0; i < backend->shard_count; i++)
        bodies[i] = kv_buf_peek(&stats->slots[i].body);
    if (stats->head.wanted) {
        stats->head.wanted = false; /* it waits no more: the page that is written now shall not count it */
        stats->on_stats(stats->arg, bodies, backend->shard_count);
    }
    for (unsigned i = 0; i < backend->shard_count; i++) {
        calls_cancel(backend->calls, stats->slots[i].call);
        kv_buf_free(&stats->slots[i].body);
    }
    backend_call_end(&stats->head);
}

/* Who has not answered in time is left out. */
static void stats_fail(struct backend_call *head, enum kv_err err)
{
    (void)err;
    stats_answer((struct stats_call *)head);
}

static void on_counters(void *arg, struct kv_slice body)
{
    struct counter_slot *slot = arg;
    slot->call = NULL;
    kv_buf_append(&slot->body, body);
    if (--slot->stats->waiting == 0)
        stats_answer(slot->stats);
}

static void write_stats(void *arg, struct kv_buf *buf)
{
    (void)arg;
    kv_put_empty(buf);
}

struct backend_call *backend_stats(struct backend *backend, uint64_t wait_ms, backend_on_stats on_stats, void *arg)
{
    struct stats_call *stats = backend_call_new(backend, sizeof *stats, stats_fail);
    stats->head.deadline_ms = kv_clock_ms() + wait_ms;
    stats->on_stats = on_stats;
    stats->arg = arg;
    for (unsigned i = 0; i < backend->shard_count; i++) {
        stats->slots[i].stats = stats;
        if (!backend_shard_answers(backend, i))
            continue;
        stats->waiting++;
        stats->slots[i].call =
            calls_send(backend->calls, i, KV_MSG_STATS, true, write_stats, on_counters, &stats->slots[i]);
    }
    if (stats->waiting == 0)
        backend_call_fail_later(&stats->head, KV_UNAVAILABLE);
    return &stats->head;
}
