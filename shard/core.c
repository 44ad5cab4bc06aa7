/* shard/core.c -- see core.h. This file: life, dispatch, generations. Records are in core_fold.c, transactions in core_write.c, reads
 * in core_read.c. */
#include "core_internal.h"

#include <utlist.h>

#include "kv/log.h"

/* ---- answers -------------------------------------------------------------------------------------------------- */

struct kv_buf *core_answer(struct core *core, const struct request *request, enum kv_msg type, uint64_t position)
{
    return core->world.answer_begin(core->world.ctx, request->session, type, request->request_id, position);
}

void core_answered(struct core *core)
{
    core->world.answer_end(core->world.ctx);
}

void core_answer_done(struct core *core, const struct request *request, enum kv_err err, uint64_t position)
{
    kv_put_done(core_answer(core, request, KV_MSG_DONE, position), err);
    core_answered(core);
}

/* ---- dispatch ------------------------------------------------------------------------------------------------- */

static const struct {
    enum kv_msg type;
    enum kv_err (*handle)(struct core *core, const struct request *request);
} handlers[] = {
    {KV_MSG_READ, core_on_read},
    {KV_MSG_OPEN, core_on_open},
    {KV_MSG_FETCH, core_on_fetch},
    {KV_MSG_CLOSE, core_on_close},
    {KV_MSG_REFS, core_on_refs},
    {KV_MSG_LIST, core_on_list},
    {KV_MSG_LOCK, core_on_lock},
    {KV_MSG_PREPARE, core_on_prepare},
    {KV_MSG_APPLY, core_on_prepare},
    {KV_MSG_COMMIT, core_on_commit},
    {KV_MSG_ABORT, core_on_abort},
    {KV_MSG_RELEASE, core_on_release},
    {KV_MSG_FORGET, core_on_forget},
    {KV_MSG_RECOVER, core_on_recover},
    {KV_MSG_STAGE, core_on_stage},
    {KV_MSG_STAGE_DATA, core_on_stage_data},
    {KV_MSG_STAGE_FILE, core_on_stage_file},
    {KV_MSG_STAGE_DROP, core_on_stage_drop},
};

enum kv_err core_dispatch(struct core *core, const struct request *request)
{
    for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++) {
        if (handlers[i].type == request->type)
            return handlers[i].handle(core, request);
    }
    return KV_INVALID;
}

enum kv_err core_message(struct core *core, uint64_t session, enum kv_msg type, uint64_t request_id,
                         struct kv_slice body)
{
    struct request request = {session, type, request_id, body, core->intents.sequence_last};
    return core_dispatch(core, &request);
}

size_t core_fetch(const struct core *core, enum overlay_table table, struct kv_slice *keys, size_t count)
{
    return ledger_fetch(&core->ledger, table, keys, count);
}

const struct kv_ops *core_voted(const struct core *core, uint64_t txn_id)
{
    const struct intent *intent = intents_find(&core->intents, txn_id);
    return intent == NULL ? NULL : &intent->ops;
}

bool core_will_look_up(const struct core *core, struct kv_slice key)
{
    return !locks_state(core->locks, key).has_version;
}

/* ---- life ----------------------------------------------------------------------------------------------------- */

struct core *core_new(const struct core_options *options, const struct core_world *world, const struct store_meta *meta)
{
    struct core *core = kv_alloc_zero(1, sizeof *core);
    core->options = *options;
    core->world = *world;
    core->position = meta->position;
    core->locks = locks_new(core_on_granted, core);
    ledger_init(&core->ledger, &core->world, meta);
    enum kv_err err = intents_decode(meta->intents, &core->intents);
    if (err != KV_OK)
        core->world.failed(core->world.ctx, err, "cannot read the open transactions");
    for (const struct intent *intent = core->intents.open; intent != NULL; intent = intent->hh.next) {
        ledger_restore_votes(&core->ledger, &intent->ops);
        core_take_locks(core, intent->txn_id, &intent->ops);
    }
    return core;
}

static void free_parked(struct parked **list)
{
    struct parked *parked, *after;
    DL_FOREACH_SAFE(*list, parked, after) {
        DL_DELETE(*list, parked);
        parked_free(&parked);
    }
}

void core_free(struct core **core)
{
    if (*core == NULL)
        return;
    free_parked(&(*core)->stalled);
    intents_clear(&(*core)->intents);
    locks_free(&(*core)->locks);
    ledger_clear(&(*core)->ledger);
    core_clear_reads(*core);
    core_trim(*core);
    free(*core);
    *core = NULL;
}

void core_trim(struct core *core)
{
    kv_ops_free(&core->prepare.ops);
    kv_buf_free(&core->existed);
    kv_buf_free(&core->record);
    kv_buf_free(&core->bytes);
}

static void drop_session(struct parked **list, uint64_t session, size_t *count)
{
    struct parked *parked, *after;
    DL_FOREACH_SAFE(*list, parked, after) {
        if (parked->session != session)
            continue;
        DL_DELETE(*list, parked);
        --*count;
        parked_free(&parked);
    }
}

void core_session_closed(struct core *core, uint64_t session)
{
    drop_session(&core->stalled, session, &core->stalled_count);
    for (struct intent *intent = core->intents.open; intent != NULL; intent = intent->hh.next)
        drop_session(&intent->parked, session, &core->parked_count);
    core_close_reads(core, session);
    locks_session_closed(core->locks, session);
}

/* ---- generations ---------------------------------------------------------------------------------------------- */

bool core_wants_freeze(const struct core *core, bool idle)
{
    if (core->ledger.frozen != NULL)
        return false;
    bool awaited = core->stalled != NULL && overlay_rows(core->ledger.active) > 0;
    return overlay_bytes(core->ledger.active) >= core->options.overlay_bytes_max / 2 ||
           core->ledger.dead_bytes >= CORE_DEAD_BYTES || awaited || (idle && core->changed);
}

struct core_generation *core_freeze(struct core *core)
{
    kv_assert(core->ledger.frozen == NULL);
    struct core_generation *generation = kv_alloc_zero(1, sizeof *generation);
    generation->rows = core->ledger.active;
    core->ledger.frozen = core->ledger.active;
    core->ledger.active = overlay_new();
    core->ledger.dead_bytes = 0;
    core->changed = false;
    intents_encode(&core->intents, &generation->intents);
    core_held(core, &generation->held, &generation->held_count);
    generation->meta = (struct store_meta){
        .position = core->position,
        .object_id_next = core->ledger.object_id_next,
        .keys = core->ledger.keys,
        .objects = core->ledger.objects,
        .stored_bytes = core->ledger.stored_bytes,
        .intents = kv_buf_peek(&generation->intents),
    };
    return generation;
}

struct core_generation *core_restore(struct core *core, struct store_redo *redo)
{
    kv_assert(core->ledger.frozen == NULL && core->position == redo->meta.position);
    struct core_generation *generation = kv_alloc_zero(1, sizeof *generation);
    *generation = (struct core_generation){.rows = redo->rows, .meta = redo->meta, .intents = redo->intents};
    core->ledger.frozen = redo->rows;
    *redo = (struct store_redo){0};
    return generation;
}

void core_generation_free(struct core_generation **generation)
{
    if (*generation == NULL)
        return;
    overlay_free(&(*generation)->rows);
    kv_buf_free(&(*generation)->intents);
    free((*generation)->held);
    free(*generation);
    *generation = NULL;
}

static void run_stalled(struct core *core)
{
    struct parked *list = core->stalled, *parked, *after;
    core->stalled = NULL;
    core->stalled_count = 0;
    bool is_first = true;
    DL_FOREACH_SAFE(list, parked, after) {
        struct request request = {parked->session, parked->type, parked->request_id, kv_buf_peek(&parked->body), 0};
        struct parked *last = core->stalled == NULL ? NULL : core->stalled->prev;
        core_dispatch(core, &request);
        if (core->stalled != NULL && core->stalled->prev != last) { /* it stalled again */
            core->stalled->prev->since_ms = parked->since_ms;
            core->stalled->prev->passed_by = is_first;
        }
        is_first = false;
        DL_DELETE(list, parked);
        parked_free(&parked);
    }
}

void core_applied(struct core *core, struct core_generation **generation)
{
    kv_assert(*generation != NULL && (*generation)->rows == core->ledger.frozen);
    core->ledger.frozen = NULL;
    core_generation_free(generation);
    run_stalled(core);
}

void core_tick(struct core *core, uint64_t now_ms, uint64_t stalled_ms_max, enum kv_err err)
{
    bool is_first = core->now_ms == 0;
    core->now_ms = now_ms;
    struct parked *parked, *after;
    if (is_first) { /* what came before it did not wait since the clock began */
        DL_FOREACH(core->stalled, parked)
            parked->since_ms = now_ms;
    }
    DL_FOREACH_SAFE(core->stalled, parked, after) {
        if (now_ms - parked->since_ms < stalled_ms_max)
            continue;
        struct request request = {parked->session, parked->type, parked->request_id, {0}, 0};
        core_answer_vote(core, &request, err, kv_slice(NULL, 0), 0);
        DL_DELETE(core->stalled, parked);
        core->stalled_count--;
        parked_free(&parked);
    }
}

void core_waiting(const struct core *core, uint64_t *rows, uint64_t *bytes)
{
    const struct overlay *frozen = core->ledger.frozen;
    *rows = overlay_rows(core->ledger.active) + (frozen == NULL ? 0 : overlay_rows(frozen));
    *bytes = overlay_bytes(core->ledger.active) + (frozen == NULL ? 0 : overlay_bytes(frozen));
}

void core_stats(const struct core *core, struct core_stats *out)
{
    *out = core->stats;
    out->keys = core->ledger.keys;
    out->objects = core->ledger.objects;
    out->stored_bytes = core->ledger.stored_bytes;
    out->object_id_next = core->ledger.object_id_next;
    core_waiting(core, &out->overlay_rows, &out->overlay_bytes);
    out->locks = locks_count(core->locks);
    out->lock_waits = locks_waiting(core->locks);
    out->intents = HASH_COUNT(core->intents.open);
    out->done = HASH_COUNT(core->intents.done);
    out->stalled = core->stalled_count;
    out->parked_reads = core->parked_count;
}
