/* shard/serve_stats.c -- what a shard tells about itself: gathered from everything it owns, for STATS and for the page of counters. */
#include "serve_internal.h"

/* Asking journal and applier makes their peaks begin anew: what they were is kept here. */
static void raise_peak(uint64_t *peak, uint64_t *now)
{
    if (*now > *peak)
        *peak = *now;
    *now = *peak;
}

/* The age of the oldest record that is not in LMDB. */
static uint64_t apply_lag_ms(const struct serve *serve)
{
    uint64_t since_ms = serve->frozen_ms != 0 ? serve->frozen_ms : serve->active_ms;
    return since_ms == 0 ? 0 : loop_now_ms(serve->loop) - since_ms;
}

void serve_counters(struct serve *serve, struct counters *out)
{
    *out = (struct counters){.store = serve->space.usage,
                             .journal_position = serve->position,
                             .journal_durable = journal_durable(serve->on.journal),
                             .journal_applied = serve->applied,
                             .disk_bytes = serve->space.disk_bytes,
                             .disk_free_bytes = serve->space.disk_free_bytes,
                             .replayed_records = serve->on.records,
                             .apply_lag_ms = apply_lag_ms(serve),
                             .overlay_bytes_max = serve->options.recover.core.overlay_bytes_max,
                             .sessions = sessions_count(serve->sessions),
                             .epoch = sessions_epoch(serve->sessions),
                             .full = serve_is_full(serve),
                             .uptime_ms = loop_now_ms(serve->loop) - serve->started_ms};
    sessions_load(serve->sessions, &out->load);
    core_stats(serve->on.core, &out->core);
    journal_stats(serve->on.journal, &out->journal);
    applier_stats(serve->applier, &out->applier);
    raise_peak(&serve->flush_ns_max, &out->journal.flush_ns_max);
    raise_peak(&serve->generation_ns_max, &out->applier.generation_ns_max);
    counters_read_process(out);
    counters_carry(&serve->carry, out);
}

void serve_answer_stats(struct serve *serve, uint64_t session, uint64_t request_id)
{
    struct counters counters;
    serve_counters(serve, &counters);
    serve->flush_ns_max = serve->generation_ns_max = 0;
    counters_put(&counters, sessions_answer_begin(serve->sessions, session, KV_MSG_COUNTERS, request_id, 0));
    sessions_answer_end(serve->sessions);
}
