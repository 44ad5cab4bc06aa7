/* shard/serve_internal.h -- what serve.c (turns), serve_world.c (what the core asks), serve_stats.c (STATS), serve_rest.c (memory) and
 * serve_touch.c (messages that came together) share. Nobody else. */
#ifndef KV_SHARD_SERVE_INTERNAL_H
#define KV_SHARD_SERVE_INTERNAL_H

#include "applier.h"
#include "counters.h"
#include "loop.h"
#include "serve.h"
#include "sessions.h"
#include "space.h"
#include "wire/messages.h"

struct serve {
    struct recovered on; /* first: core_world.ctx is both */
    struct serve_options options;
    struct loop *loop;
    struct applier *applier;
    struct sessions *sessions;
    struct loop_watch journal_watch;
    struct loop_watch applier_watch;
    struct loop_timer tick;
    struct loop_timer lazy;
    uint64_t started_ms;
    struct counters_carry carry;
    uint64_t flush_ns_max, generation_ns_max; /* since they were told last */

    uint64_t position;    /* of the last record appended */
    uint64_t applied;     /* of the last record in LMDB */
    uint64_t appended_ms; /* when */
    uint64_t active_ms;   /* when the first record that no generation has yet was appended; 0: there is none */
    uint64_t frozen_ms;   /* the same of the frozen generation */
    bool submit;          /* somebody waits for what was appended in this turn */
    unsigned messages;    /* of this turn */

    struct core_generation *frozen; /* waits for its position to become durable, or is being applied */
    bool applying;

    struct space space;
    uint64_t written_bytes; /* of the store, about, since it was opened */
    uint64_t quiet_ms;      /* when what follows began to be counted */
    uint64_t quiet_messages;
    bool rest_due; /* something was done since the last rest */

    uint64_t refused_ms; /* when room was last asked for in vain; 0: never */
    bool told_full;

    bool stopping;
    uint64_t stopping_ms;
};

/* Writes are refused now, or were a moment ago. */
static inline bool serve_is_full(const struct serve *serve)
{
    bool refused = serve->refused_ms != 0 && loop_now_ms(serve->loop) - serve->refused_ms < SERVE_FULL_MS;
    return refused || applier_full(serve->applier);
}

struct core_world serve_world(struct serve *serve);
/* Also goes into the page that outlives the process. */
void serve_counters(struct serve *serve, struct counters *out);
void serve_answer_stats(struct serve *serve, uint64_t session, uint64_t request_id);
/* Before these frames are handled: brings the rows that they will look up into the processor's caches. Returns how many there are. */
size_t serve_touch(struct serve *serve, struct kv_slice frames);
/* At the end of a turn, outside of every read of the store. */
void serve_rest_if_due(struct serve *serve);

#endif
