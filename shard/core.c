/* shard/core.c -- see core.h. This file: life, dispatch, transactions and their records. Reads are in core_read.c. */
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

static void answer_vote(struct core *core, const struct request *request, enum kv_err err, const struct kv_buf *existed,
                        uint64_t position)
{
    struct kv_buf *buf = core_answer(core, request, KV_MSG_VOTE, position);
    size_t count = err == KV_OK ? existed->bytes : 0;
    kv_put_vote_begin(buf, err, count);
    for (size_t i = 0; i < count; i++)
        kv_pack_bool(buf, existed->data[i] != 0);
    core_answered(core);
}

/* ---- folding records: the only way in which state changes ----------------------------------------------------- */

static void take_locks(struct core *core, uint64_t txn_id, struct kv_list ops)
{
    struct kv_op op;
    while (kv_next_op(&ops, &op)) {
        if (op.kind == KV_OP_SET || op.kind == KV_OP_CLEAR || op.kind == KV_OP_CHECK)
            locks_take_for_intent(core->locks, txn_id, op.key, op.kind != KV_OP_CHECK);
    }
}

/* The operations without contents: what an intent keeps. */
static struct kv_buf without_bytes(struct kv_list ops)
{
    struct kv_buf out = {0};
    struct kv_op op;
    while (kv_next_op(&ops, &op)) {
        op.has_bytes = false;
        kv_put_op(&out, &op);
    }
    return out;
}

static enum kv_err fold_prepare(struct core *core, uint64_t position, uint32_t type, struct kv_slice body)
{
    uint64_t txn_id;
    kv_shard_set participants;
    struct kv_list ops;
    if (kv_get_prepare(body, &txn_id, &participants, &ops) != KV_OK)
        return KV_CORRUPT;
    struct kv_buf existed = {0};
    ledger_prepare(&core->ledger, ops, position, &existed);
    if (type == CORE_RECORD_APPLY) {
        ledger_commit(&core->ledger, txn_id, ops, position);
        intents_add_done(&core->intents, txn_id, &existed);
        locks_release(core->locks, txn_id);
    } else {
        struct kv_buf kept = without_bytes(ops);
        intents_add(&core->intents, txn_id, participants, position, &kept, ops.count, &existed);
        take_locks(core, txn_id, ops);
    }
    return KV_OK;
}

/* Messages that waited for the decision go through the door again; they wait for no intent that came after them. */
static void run_parked(struct core *core, struct parked *list)
{
    struct parked *parked, *after;
    DL_FOREACH_SAFE(list, parked, after)
    {
        struct request request = {parked->session, parked->type, parked->request_id, kv_buf_peek(&parked->body),
                                  parked->sequence_max};
        core->parked_count--;
        core_dispatch(core, &request);
        parked_free(&parked);
    }
}

static enum kv_err fold_decision(struct core *core, uint32_t type, struct kv_slice body)
{
    uint64_t txn_id;
    if (kv_get_id(body, &txn_id) != KV_OK)
        return KV_CORRUPT;
    struct intent *intent = intents_find(&core->intents, txn_id);
    if (intent == NULL)
        return KV_CORRUPT;
    if (type == CORE_RECORD_COMMIT) {
        ledger_commit(&core->ledger, txn_id, intent_ops(intent), 0);
        intents_add_done(&core->intents, txn_id, NULL);
    } else {
        ledger_abort(&core->ledger, intent_ops(intent), 0);
    }
    struct parked *waiting = intents_remove(&core->intents, intent);
    locks_release(core->locks, txn_id);
    run_parked(core, waiting);
    return KV_OK;
}

static enum kv_err fold_forget(struct core *core, struct kv_slice body)
{
    uint64_t from_txn_id, below_txn_id;
    struct kv_list open;
    if (kv_get_forget(body, &from_txn_id, &below_txn_id, &open) != KV_OK)
        return KV_CORRUPT;
    intents_forget(&core->intents, from_txn_id, below_txn_id, open);
    return KV_OK;
}

static enum kv_err fold(struct core *core, uint64_t position, uint32_t type, struct kv_slice body)
{
    core->position = position;
    core->changed = true;
    switch (type) {
    case CORE_RECORD_APPLY:
    case CORE_RECORD_PREPARE:
        return fold_prepare(core, position, type, body);
    case CORE_RECORD_COMMIT:
    case CORE_RECORD_ABORT:
        return fold_decision(core, type, body);
    case CORE_RECORD_FORGET:
        return fold_forget(core, body);
    default:
        return KV_CORRUPT;
    }
}

enum kv_err core_replay(struct core *core, uint64_t position, uint32_t type, struct kv_slice body)
{
    return fold(core, position, type, body);
}

/* Journals and folds one record of our own making. */
static uint64_t record(struct core *core, enum core_record type, struct kv_slice body, bool lazy)
{
    uint64_t position = core->world.append(core->world.ctx, type, body, lazy);
    enum kv_err err = fold(core, position, type, body);
    kv_assert(err == KV_OK);
    return position;
}

static uint64_t record_id(struct core *core, enum core_record type, uint64_t id)
{
    struct kv_buf body = {0};
    kv_put_id(&body, id);
    uint64_t position = record(core, type, kv_buf_peek(&body), true);
    kv_buf_free(&body);
    return position;
}

/* ---- LOCK ----------------------------------------------------------------------------------------------------- */

static void on_granted(void *ctx, uint64_t txn_id, uint64_t session, uint64_t request_id, const struct kv_slice *keys,
                       size_t count)
{
    (void)txn_id;
    struct core *core = ctx;
    struct kv_buf rows = {0};
    uint64_t position_max = 0;
    for (size_t i = 0; i < count; i++) {
        struct kv_row row;
        uint64_t position;
        bool found = ledger_get_key(&core->ledger, keys[i], &row, &position) == KV_OK;
        kv_put_row_or_nil(&rows, found ? &row : NULL);
        position_max = position > position_max ? position : position_max;
    }
    struct kv_buf *buf = core->world.answer_begin(core->world.ctx, session, KV_MSG_LOCKED, request_id, position_max);
    kv_put_locked_begin(buf, KV_OK, count);
    kv_buf_append(buf, kv_buf_peek(&rows));
    core_answered(core);
    kv_buf_free(&rows);
}

static enum kv_err on_lock(struct core *core, const struct request *request)
{
    uint64_t txn_id;
    struct kv_list keys;
    if (kv_get_lock(request->body, &txn_id, &keys) != KV_OK || txn_id == 0 || keys.count == 0 ||
        keys.count > KV_BATCH_OPS_MAX || intents_find(&core->intents, txn_id) != NULL)
        return KV_INVALID;
    size_t count = keys.count;
    struct kv_slice *wanted = kv_alloc(count * sizeof *wanted);
    enum kv_err err = KV_OK;
    for (size_t i = 0; i < count; i++) {
        kv_next_key(&keys, &wanted[i]);
        if (i > 0 && kv_slice_compare(wanted[i - 1], wanted[i]) >= 0)
            err = KV_INVALID;
    }
    if (err == KV_OK)
        locks_request(core->locks, txn_id, request->session, request->request_id, wanted, count);
    free(wanted);
    return err;
}

/* ---- PREPARE and APPLY ---------------------------------------------------------------------------------------- */

struct proposal {
    uint64_t txn_id;
    kv_shard_set participants;
    struct kv_list ops;
    bool frees; /* only takes away: allowed on a full disk */
};

/* The version that the transaction read must still be there, and the key not be promised to another. */
static enum kv_err check_key(struct core *core, const struct proposal *proposal, const struct kv_op *op)
{
    uint64_t holder = locks_holder(core->locks, op->key, NULL);
    if (holder != 0 && holder != proposal->txn_id)
        return KV_CONFLICT;
    struct kv_row row;
    uint64_t position;
    bool found = ledger_get_key(&core->ledger, op->key, &row, &position) == KV_OK;
    return (found ? row.txn_id : 0) == op->expect_txn ? KV_OK : KV_CONFLICT;
}

static enum kv_err check_add(struct core *core, const struct kv_op *op)
{
    struct kv_object object;
    uint64_t position;
    if (op->has_bytes || ledger_get_object(&core->ledger, &op->hash, &object, &position) == KV_OK)
        return KV_OK;
    const struct stage *stage = core_find_stage(core, op->object_id);
    bool complete = stage != NULL && kv_hash_equal(&stage->hash, &op->hash) && stage->durable == stage->stored_bytes &&
                    stage->stored_bytes == op->stored_bytes && stage->size == op->size;
    return complete ? KV_OK : KV_STALE;
}

/* The row that holds the reference was written by a transaction whose COMMIT may still be on its way to this shard: then the
 * reference is not settled yet, and must not be taken from another key's. */
static enum kv_err check_drop(struct core *core, const struct kv_op *op)
{
    struct kv_object object;
    uint64_t position;
    bool found = ledger_get_object(&core->ledger, &op->hash, &object, &position) == KV_OK;
    return found && ledger_refs_unpromised(&core->ledger, &op->hash, object.refs) >= op->count ? KV_OK : KV_CONFLICT;
}

static enum kv_err check_ops(struct core *core, struct proposal *proposal)
{
    struct kv_list ops = proposal->ops;
    struct kv_op op;
    enum kv_err err = KV_OK;
    proposal->frees = true;
    while (err == KV_OK && kv_next_op(&ops, &op)) {
        if (op.kind == KV_OP_ADD)
            err = check_add(core, &op);
        else if (op.kind == KV_OP_DROP)
            err = check_drop(core, &op);
        else
            err = check_key(core, proposal, &op);
        proposal->frees = proposal->frees && op.kind != KV_OP_ADD && op.kind != KV_OP_SET;
    }
    return err;
}

/* What the journal gets: contents that are here already are left out, new ones have their object id. */
static struct kv_op journal_op(struct core *core, struct kv_op op, uint64_t *object_id_next)
{
    if (op.kind != KV_OP_ADD)
        return op;
    struct kv_object object;
    uint64_t position;
    bool here = ledger_get_object(&core->ledger, &op.hash, &object, &position) == KV_OK;
    if (op.object_id != 0)
        core_adopt_stage(core, &op.hash, op.object_id, here);
    if (here) {
        op.has_bytes = false;
        op.object_id = 0;
        core->stats.dedup_hits++;
    } else if (op.has_bytes) {
        op.object_id = (*object_id_next)++;
    }
    return op;
}

static uint64_t journal_proposal(struct core *core, const struct proposal *proposal, enum core_record type)
{
    struct kv_buf *body = &core->scratch;
    body->bytes = 0;
    kv_put_prepare_begin(body, proposal->txn_id, proposal->participants, proposal->ops.count);
    struct kv_list ops = proposal->ops;
    struct kv_op op;
    uint64_t object_id_next = core->ledger.object_id_next;
    while (kv_next_op(&ops, &op)) {
        core->stats.puts += op.kind == KV_OP_SET;
        core->stats.deletes += op.kind == KV_OP_CLEAR && op.expect_txn != 0;
        op = journal_op(core, op, &object_id_next);
        kv_put_op(body, &op);
    }
    core->ledger.object_id_next = object_id_next;
    return record(core, type, kv_buf_peek(body), false);
}

/* Rows that wait in memory, both generations; a transaction larger than the bound passes when nothing else waits. */
static bool overlay_has_room(const struct core *core, const struct proposal *proposal, size_t more)
{
    size_t rows = overlay_rows(core->ledger.active);
    size_t bytes = overlay_bytes(core->ledger.active);
    if (core->ledger.frozen != NULL) {
        rows += overlay_rows(core->ledger.frozen);
        bytes += overlay_bytes(core->ledger.frozen);
    }
    uint64_t bytes_max = core->options.overlay_bytes_max * (proposal->frees ? 2 : 1);
    return rows == 0 || bytes + more <= bytes_max;
}

static void stall(struct core *core, const struct request *request)
{
    struct parked *parked = parked_new(request->session, request->type, request->request_id, request->body);
    parked->since_ms = core->now_ms;
    DL_APPEND(core->stalled, parked);
    core->stalled_count++;
}

/* Answers a repeated PREPARE or APPLY whose first vote was lost. False: it is the first one. */
static bool answer_repeated(struct core *core, const struct request *request, uint64_t txn_id)
{
    const struct intent *intent = intents_find(&core->intents, txn_id);
    const struct done *done = intents_find_done(&core->intents, txn_id);
    if (intent != NULL)
        answer_vote(core, request, KV_OK, &intent->existed, intent->position);
    else if (done != NULL) /* its record may be the newest one */
        answer_vote(core, request, KV_OK, &done->existed, core->position);
    return intent != NULL || done != NULL;
}

/* First come, first served: else small ones would keep a large one out for ever. What only takes away goes first, since it is what a
 * full disk waits for; but on a disk with room it does not fill generation after generation in front of the same large one. */
static bool waits_its_turn(const struct core *core, const struct proposal *proposal)
{
    if (core->stalled == NULL)
        return false;
    return !proposal->frees || (core->stalled->passed_by && core->world.room(core->world.ctx, 0, false));
}

static enum kv_err on_prepare(struct core *core, const struct request *request)
{
    struct proposal proposal;
    if (kv_get_prepare(request->body, &proposal.txn_id, &proposal.participants, &proposal.ops) != KV_OK ||
        proposal.txn_id == 0 || proposal.ops.count == 0 ||
        (proposal.participants & kv_shard_bit(core->options.shard_index)) == 0)
        return KV_INVALID;
    if (answer_repeated(core, request, proposal.txn_id))
        return KV_OK;
    enum kv_err err = check_ops(core, &proposal);
    if (err == KV_OK && !core->world.room(core->world.ctx, request->body.bytes, proposal.frees))
        err = KV_NO_SPACE;
    if (err == KV_OK && core->intents.bytes > INTENTS_BYTES_MAX)
        err = KV_OVERLOADED; /* a participant hangs: what it leaves open here must stay within bounds */
    core->stats.conflicts += err == KV_CONFLICT;
    if (err != KV_OK) {
        answer_vote(core, request, err, NULL, 0);
        return KV_OK;
    }
    if (waits_its_turn(core, &proposal) || !overlay_has_room(core, &proposal, request->body.bytes)) {
        stall(core, request);
        return KV_OK;
    }
    bool alone = request->type == KV_MSG_APPLY;
    struct request answer_to = *request;
    uint64_t position = journal_proposal(core, &proposal, alone ? CORE_RECORD_APPLY : CORE_RECORD_PREPARE);
    core->stats.applies += alone;
    bool repeated = answer_repeated(core, &answer_to, proposal.txn_id);
    kv_assert(repeated && position == core->position);
    return KV_OK;
}

/* ---- COMMIT, ABORT, RELEASE, FORGET --------------------------------------------------------------------------- */

static enum kv_err on_commit(struct core *core, const struct request *request)
{
    uint64_t txn_id;
    if (kv_get_id(request->body, &txn_id) != KV_OK)
        return KV_INVALID;
    enum kv_err err = KV_OK;
    if (intents_find(&core->intents, txn_id) != NULL) {
        record_id(core, CORE_RECORD_COMMIT, txn_id);
        core->stats.commits++;
    } else if (intents_find_done(&core->intents, txn_id) == NULL) {
        kv_error("asked to commit transaction %llu that was never prepared here", (unsigned long long)txn_id);
        err = KV_CONFLICT;
    }
    core_answer_done(core, request, err, core->position);
    return KV_OK;
}

/* A PREPARE of this transaction that still waits for room must not come to life later. */
static void drop_stalled(struct core *core, uint64_t txn_id)
{
    struct parked *parked, *after;
    DL_FOREACH_SAFE(core->stalled, parked, after)
    {
        uint64_t id;
        kv_shard_set participants;
        struct kv_list ops;
        kv_get_prepare(kv_buf_peek(&parked->body), &id, &participants, &ops);
        if (id != txn_id)
            continue;
        DL_DELETE(core->stalled, parked);
        core->stalled_count--;
        parked_free(&parked);
    }
}

static enum kv_err on_abort(struct core *core, const struct request *request)
{
    uint64_t txn_id;
    if (kv_get_id(request->body, &txn_id) != KV_OK || intents_find_done(&core->intents, txn_id) != NULL)
        return KV_INVALID;
    drop_stalled(core, txn_id);
    if (intents_find(&core->intents, txn_id) != NULL) {
        record_id(core, CORE_RECORD_ABORT, txn_id);
        core->stats.aborts++;
    } else {
        locks_release(core->locks, txn_id);
    }
    core_answer_done(core, request, KV_OK, core->position);
    return KV_OK;
}

static enum kv_err on_release(struct core *core, const struct request *request)
{
    uint64_t txn_id;
    if (kv_get_id(request->body, &txn_id) != KV_OK || intents_find(&core->intents, txn_id) != NULL)
        return KV_INVALID;
    bool held = locks_release(core->locks, txn_id);
    core_answer_done(core, request, held ? KV_OK : KV_CONFLICT, 0);
    return KV_OK;
}

/* Answered when it is durable, so that it need not be said again: a restart forgets no more than the journal says. */
static enum kv_err on_forget(struct core *core, const struct request *request)
{
    uint64_t from_txn_id, below_txn_id;
    struct kv_list open;
    if (kv_get_forget(request->body, &from_txn_id, &below_txn_id, &open) != KV_OK)
        return KV_INVALID;
    struct kv_buf kept = {0}, body = {0};
    size_t kept_count;
    if (intents_forgettable(&core->intents, from_txn_id, below_txn_id, open, &kept, &kept_count) > 0) {
        kv_put_forget_begin(&body, from_txn_id, below_txn_id, kept_count);
        kv_buf_append(&body, kv_buf_peek(&kept));
        record(core, CORE_RECORD_FORGET, kv_buf_peek(&body), true);
    }
    kv_buf_free(&kept);
    kv_buf_free(&body);
    core_answer_done(core, request, KV_OK, core->position);
    return KV_OK;
}

/* What is reported must be there after a crash too: the new router decides by it. */
static enum kv_err on_recover(struct core *core, const struct request *request)
{
    if (kv_get_empty(request->body) != KV_OK)
        return KV_INVALID;
    struct kv_buf *buf = core_answer(core, request, KV_MSG_REPORT, core->position);
    kv_put_report_begin(buf, HASH_COUNT(core->intents.open));
    for (const struct intent *intent = core->intents.open; intent != NULL; intent = intent->hh.next)
        kv_put_report_intent(buf, intent->txn_id, intent->participants);
    kv_put_report_done(buf, HASH_COUNT(core->intents.done));
    for (const struct done *done = core->intents.done; done != NULL; done = done->hh.next)
        kv_pack_uint(buf, done->txn_id);
    core_answered(core);
    return KV_OK;
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
    {KV_MSG_LOCK, on_lock},
    {KV_MSG_PREPARE, on_prepare},
    {KV_MSG_APPLY, on_prepare},
    {KV_MSG_COMMIT, on_commit},
    {KV_MSG_ABORT, on_abort},
    {KV_MSG_RELEASE, on_release},
    {KV_MSG_FORGET, on_forget},
    {KV_MSG_RECOVER, on_recover},
    {KV_MSG_STAGE, core_on_stage},
    {KV_MSG_STAGE_DATA, core_on_stage_data},
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

/* ---- life ----------------------------------------------------------------------------------------------------- */

struct core *core_new(const struct core_options *options, const struct core_world *world, const struct store_meta *meta)
{
    struct core *core = kv_alloc_zero(1, sizeof *core);
    core->options = *options;
    core->world = *world;
    core->position = meta->position;
    core->locks = locks_new(on_granted, core);
    ledger_init(&core->ledger, &core->world, meta);
    enum kv_err err = intents_decode(meta->intents, &core->intents);
    if (err != KV_OK)
        core->world.failed(core->world.ctx, err, "open transactions");
    for (const struct intent *intent = core->intents.open; intent != NULL; intent = intent->hh.next) {
        ledger_restore_votes(&core->ledger, intent_ops(intent));
        take_locks(core, intent->txn_id, intent_ops(intent));
    }
    return core;
}

static void free_parked(struct parked **list)
{
    struct parked *parked, *after;
    DL_FOREACH_SAFE(*list, parked, after)
    {
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
    kv_buf_free(&(*core)->scratch);
    kv_buf_free(&(*core)->bytes);
    free(*core);
    *core = NULL;
}

static void drop_session(struct parked **list, uint64_t session, size_t *count)
{
    struct parked *parked, *after;
    DL_FOREACH_SAFE(*list, parked, after)
    {
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
    return overlay_bytes(core->ledger.active) >= core->options.overlay_bytes_max / 2 || awaited ||
           (idle && core->changed);
}

struct core_generation *core_freeze(struct core *core)
{
    kv_assert(core->ledger.frozen == NULL);
    struct core_generation *generation = kv_alloc_zero(1, sizeof *generation);
    generation->rows = core->ledger.active;
    core->ledger.frozen = core->ledger.active;
    core->ledger.active = overlay_new();
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

static void run_stalled(struct core *core)
{
    struct parked *list = core->stalled, *parked, *after;
    core->stalled = NULL;
    core->stalled_count = 0;
    bool is_first = true;
    DL_FOREACH_SAFE(list, parked, after)
    {
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
    overlay_free(&(*generation)->rows);
    kv_buf_free(&(*generation)->intents);
    free((*generation)->held);
    free(*generation);
    *generation = NULL;
    run_stalled(core);
}

void core_tick(struct core *core, uint64_t now_ms, uint64_t stalled_ms_max, enum kv_err err)
{
    core->now_ms = now_ms;
    struct parked *parked, *after;
    DL_FOREACH_SAFE(core->stalled, parked, after)
    {
        if (now_ms - parked->since_ms < stalled_ms_max)
            continue;
        struct request request = {parked->session, parked->type, parked->request_id, {0}, 0};
        answer_vote(core, &request, err, NULL, 0);
        DL_DELETE(core->stalled, parked);
        core->stalled_count--;
        parked_free(&parked);
    }
}

void core_stats(const struct core *core, struct core_stats *out)
{
    *out = core->stats;
    out->keys = core->ledger.keys;
    out->objects = core->ledger.objects;
    out->stored_bytes = core->ledger.stored_bytes;
    out->object_id_next = core->ledger.object_id_next;
    out->overlay_rows = overlay_rows(core->ledger.active);
    out->overlay_bytes = overlay_bytes(core->ledger.active);
    if (core->ledger.frozen != NULL) {
        out->overlay_rows += overlay_rows(core->ledger.frozen);
        out->overlay_bytes += overlay_bytes(core->ledger.frozen);
    }
    out->locks = locks_count(core->locks);
    out->lock_waits = locks_waiting(core->locks);
    out->intents = HASH_COUNT(core->intents.open);
    out->done = HASH_COUNT(core->intents.done);
    out->stalled = core->stalled_count;
    out->parked_reads = core->parked_count;
}
