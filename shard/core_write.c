/* shard/core_write.c -- the writing half of core.h: LOCK, PREPARE, APPLY, COMMIT, ABORT, RELEASE, FORGET, RECOVER. What is decided here
 * becomes a record (core_fold.c); nothing else changes the state. */
#include "core_internal.h"

#include <utlist.h>

#include "kv/log.h"

/* ---- LOCK ----------------------------------------------------------------------------------------------------- */

void core_on_granted(void *ctx, uint64_t txn_id, uint64_t session, uint64_t request_id, const struct kv_slice *keys,
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
        locks_set_version(core->locks, keys[i], found ? row.txn_id : 0);
        position_max = position > position_max ? position : position_max;
    }
    struct kv_buf *buf = core->world.answer_begin(core->world.ctx, session, KV_MSG_LOCKED, request_id, position_max);
    kv_put_locked_begin(buf, KV_OK, count);
    kv_buf_append(buf, kv_buf_peek(&rows));
    core_answered(core);
    kv_buf_free(&rows);
}

enum kv_err core_on_lock(struct core *core, const struct request *request)
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

void core_answer_vote(struct core *core, const struct request *request, enum kv_err err, struct kv_slice existed,
                      uint64_t position)
{
    struct kv_buf *buf = core_answer(core, request, KV_MSG_VOTE, position);
    kv_put_vote_begin(buf, err, existed.bytes);
    for (size_t i = 0; i < existed.bytes; i++)
        kv_pack_bool(buf, existed.data[i] != 0);
    core_answered(core);
}

static void refuse(struct core *core, const struct request *request, enum kv_err err)
{
    core_answer_vote(core, request, err, kv_slice(NULL, 0), 0);
}

/* The version that the transaction read must still be there, and the key not be promised to another. */
static enum kv_err check_key(struct core *core, uint64_t txn_id, const struct kv_op *op)
{
    struct lock_state lock = locks_state(core->locks, op->key);
    if (lock.holder != 0 && lock.holder != txn_id)
        return KV_CONFLICT;
    if (!lock.has_version) {
        struct kv_row row;
        uint64_t position;
        bool found = ledger_get_key(&core->ledger, op->key, &row, &position) == KV_OK;
        lock.version = found ? row.txn_id : 0;
    }
    return lock.version == op->expect_txn ? KV_OK : KV_CONFLICT;
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

static enum kv_err check_op(struct core *core, uint64_t txn_id, const struct kv_op *op)
{
    if (op->kind == KV_OP_ADD)
        return check_add(core, op);
    return op->kind == KV_OP_DROP ? check_drop(core, op) : check_key(core, txn_id, op);
}

static enum kv_err check_ops(struct core *core, const struct kv_msg_prepare *prepare)
{
    enum kv_err err = KV_OK;
    for (size_t i = 0; err == KV_OK && i < prepare->ops.count; i++)
        err = check_op(core, prepare->txn_id, &prepare->ops.at[i]);
    return err;
}

/* It takes away and adds nothing: allowed on a full disk. */
static bool only_frees(const struct kv_ops *ops)
{
    bool frees = true;
    for (size_t i = 0; frees && i < ops->count; i++)
        frees = ops->at[i].kind != KV_OP_ADD && ops->at[i].kind != KV_OP_SET;
    return frees;
}

/* As the journal gets it: a content that is here already is left out, a new one has its object id. */
static void settle_content(struct core *core, struct kv_op *add)
{
    struct kv_object object;
    uint64_t position;
    bool here = ledger_get_object(&core->ledger, &add->hash, &object, &position) == KV_OK;
    if (add->object_id != 0)
        core_adopt_stage(core, &add->hash, add->object_id, here);
    if (here) {
        add->has_bytes = false;
        add->object_id = 0;
        core->stats.dedup_hits++;
    } else if (add->has_bytes) {
        add->object_id = core->ledger.object_id_next++;
    }
}

static void accept(struct core *core, struct kv_msg_prepare *prepare, enum core_record type)
{
    for (struct kv_op *op = prepare->ops.at; op < prepare->ops.at + prepare->ops.count; op++) {
        core->stats.puts += op->kind == KV_OP_SET;
        core->stats.deletes += op->kind == KV_OP_CLEAR && op->expect_txn != 0;
        if (op->kind == KV_OP_ADD)
            settle_content(core, op);
    }
    core->stats.applies += type == CORE_RECORD_APPLY;
    core_record_prepare(core, type, prepare);
}

/* A transaction larger than the bound passes when nothing else waits. */
static bool overlay_has_room(const struct core *core, bool frees, size_t more)
{
    uint64_t rows, bytes;
    core_waiting(core, &rows, &bytes);
    uint64_t bytes_max = core->options.overlay_bytes_max * (frees ? 2 : 1);
    return rows == 0 || bytes + more <= bytes_max;
}

static void stall(struct core *core, const struct request *request)
{
    struct parked *parked = parked_new(request->session, request->type, request->request_id, request->body);
    parked->since_ms = core->now_ms;
    DL_APPEND(core->stalled, parked);
    core->stalled_count++;
}

/* The vote of a transaction that was accepted. False: it was not, so far. */
static bool answer_accepted(struct core *core, const struct request *request, uint64_t txn_id)
{
    const struct intent *intent = intents_find(&core->intents, txn_id);
    const struct done *done = intent == NULL ? intents_find_done(&core->intents, txn_id) : NULL;
    if (intent != NULL)
        core_answer_vote(core, request, KV_OK, intent->existed, intent->position);
    else if (done != NULL) /* its record may be the newest one */
        core_answer_vote(core, request, KV_OK, kv_slice(done->existed, done->existed_bytes), core->position);
    return intent != NULL || done != NULL;
}

/* First come, first served: else small ones would keep a large one out for ever. What only takes away goes first, since it is what a
 * full disk waits for; but on a disk with room it does not fill generation after generation in front of the same large one. */
static bool waits_its_turn(const struct core *core, bool frees)
{
    if (core->stalled == NULL)
        return false;
    return !frees || (core->stalled->passed_by && core->world.room(core->world.ctx, 0, false));
}

enum kv_err core_on_prepare(struct core *core, const struct request *request)
{
    struct kv_msg_prepare *prepare = &core->prepare;
    if (kv_get_prepare(request->body, prepare) != KV_OK || prepare->txn_id == 0 || prepare->ops.count == 0 ||
        (prepare->participants & kv_shard_bit(core->options.shard_index)) == 0)
        return KV_INVALID;
    if (answer_accepted(core, request, prepare->txn_id)) /* its vote was lost, and it is asked for again */
        return KV_OK;
    bool frees = only_frees(&prepare->ops);
    enum kv_err err = check_ops(core, prepare);
    if (err == KV_OK && !core->world.room(core->world.ctx, request->body.bytes, frees))
        err = KV_NO_SPACE;
    if (err == KV_OK && core->intents.bytes > INTENTS_BYTES_MAX)
        err = KV_OVERLOADED; /* a participant hangs: what it leaves open here must stay within bounds */
    core->stats.conflicts += err == KV_CONFLICT;
    if (err != KV_OK) {
        refuse(core, request, err);
    } else if (waits_its_turn(core, frees) || !overlay_has_room(core, frees, request->body.bytes)) {
        stall(core, request);
    } else {
        accept(core, prepare, request->type == KV_MSG_APPLY ? CORE_RECORD_APPLY : CORE_RECORD_PREPARE);
        core_answer_vote(core, request, KV_OK, kv_buf_peek(&core->existed), core->position);
    }
    return KV_OK;
}

/* ---- COMMIT, ABORT, RELEASE, FORGET --------------------------------------------------------------------------- */

enum kv_err core_on_commit(struct core *core, const struct request *request)
{
    uint64_t txn_id;
    if (kv_get_id(request->body, &txn_id) != KV_OK)
        return KV_INVALID;
    enum kv_err err = KV_OK;
    struct intent *intent = intents_find(&core->intents, txn_id);
    if (intent != NULL) {
        core_record_decision(core, CORE_RECORD_COMMIT, intent);
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
    DL_FOREACH_SAFE(core->stalled, parked, after) {
        enum kv_err err = kv_get_prepare(kv_buf_peek(&parked->body), &core->prepare);
        kv_assert(err == KV_OK);
        if (core->prepare.txn_id != txn_id)
            continue;
        DL_DELETE(core->stalled, parked);
        core->stalled_count--;
        parked_free(&parked);
    }
}

enum kv_err core_on_abort(struct core *core, const struct request *request)
{
    uint64_t txn_id;
    if (kv_get_id(request->body, &txn_id) != KV_OK || intents_find_done(&core->intents, txn_id) != NULL)
        return KV_INVALID;
    drop_stalled(core, txn_id);
    struct intent *intent = intents_find(&core->intents, txn_id);
    if (intent != NULL) {
        core_record_decision(core, CORE_RECORD_ABORT, intent);
        core->stats.aborts++;
    } else {
        locks_release(core->locks, txn_id);
    }
    core_answer_done(core, request, KV_OK, core->position);
    return KV_OK;
}

enum kv_err core_on_release(struct core *core, const struct request *request)
{
    uint64_t txn_id;
    if (kv_get_id(request->body, &txn_id) != KV_OK || intents_find(&core->intents, txn_id) != NULL)
        return KV_INVALID;
    bool held = locks_release(core->locks, txn_id);
    core_answer_done(core, request, held ? KV_OK : KV_CONFLICT, 0);
    return KV_OK;
}

/* Answered when it is durable, so that it need not be said again: a restart forgets no more than the journal says. */
enum kv_err core_on_forget(struct core *core, const struct request *request)
{
    uint64_t from_txn_id, below_txn_id;
    struct kv_list open;
    if (kv_get_forget(request->body, &from_txn_id, &below_txn_id, &open) != KV_OK)
        return KV_INVALID;
    struct kv_buf kept = {0};
    size_t kept_count;
    if (intents_forgettable(&core->intents, from_txn_id, below_txn_id, open, &kept, &kept_count) > 0)
        core_record_forget(core, from_txn_id, below_txn_id, (struct kv_list){kv_buf_peek(&kept), kept_count});
    kv_buf_free(&kept);
    core_answer_done(core, request, KV_OK, core->position);
    return KV_OK;
}

/* What is reported must be there after a crash too: the new router decides by it. */
enum kv_err core_on_recover(struct core *core, const struct request *request)
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
