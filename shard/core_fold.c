/* shard/core_fold.c -- the records of the journal, and what each does to the state of a core: the only way in which it changes, live as
 * at replay. See core.h. */
#include "core_internal.h"

#include <utlist.h>

#include "kv/log.h"

/* ---- what a record does --------------------------------------------------------------------------------------- */

void core_take_locks(struct core *core, uint64_t txn_id, const struct kv_ops *ops)
{
    for (const struct kv_op *op = ops->at; op < ops->at + ops->count; op++) {
        if (kv_op_is_on_key(op))
            locks_take_for_intent(core->locks, txn_id, op->key, op->kind != KV_OP_CHECK);
    }
}

static void fold_prepare(struct core *core, uint64_t position, uint32_t type, const struct kv_msg_prepare *prepare)
{
    core->existed.bytes = 0;
    ledger_prepare(&core->ledger, &prepare->ops, position, &core->existed);
    if (type == CORE_RECORD_APPLY) {
        ledger_commit(&core->ledger, prepare->txn_id, &prepare->ops, position);
        intents_add_done(&core->intents, prepare->txn_id, kv_buf_peek(&core->existed));
        locks_release(core->locks, prepare->txn_id);
    } else {
        intents_add(&core->intents, prepare, position, kv_buf_peek(&core->existed));
        core_take_locks(core, prepare->txn_id, &prepare->ops);
    }
}

/* Messages that waited for the decision go through the door again; they wait for no intent that came after them. */
static void run_parked(struct core *core, struct parked *list)
{
    struct parked *parked, *after;
    DL_FOREACH_SAFE(list, parked, after) {
        struct request request = {parked->session, parked->type, parked->request_id, kv_buf_peek(&parked->body),
                                  parked->sequence_max};
        core->parked_count--;
        core_dispatch(core, &request);
        parked_free(&parked);
    }
}

static void fold_decision(struct core *core, uint32_t type, struct intent *intent)
{
    uint64_t txn_id = intent->txn_id;
    if (type == CORE_RECORD_COMMIT) {
        ledger_commit(&core->ledger, txn_id, &intent->ops, 0);
        intents_add_done(&core->intents, txn_id, kv_slice(NULL, 0));
    } else {
        ledger_abort(&core->ledger, &intent->ops, 0);
    }
    struct parked *waiting = intents_remove(&core->intents, intent);
    locks_release(core->locks, txn_id);
    run_parked(core, waiting);
}

/* ---- as the journal has them ---------------------------------------------------------------------------------- */

static enum kv_err replay_prepare(struct core *core, uint64_t position, uint32_t type, struct kv_slice body)
{
    if (kv_get_prepare(body, &core->prepare) != KV_OK)
        return KV_CORRUPT;
    fold_prepare(core, position, type, &core->prepare);
    return KV_OK;
}

static enum kv_err replay_decision(struct core *core, uint32_t type, struct kv_slice body)
{
    uint64_t txn_id;
    if (kv_get_id(body, &txn_id) != KV_OK)
        return KV_CORRUPT;
    struct intent *intent = intents_find(&core->intents, txn_id);
    if (intent == NULL)
        return KV_CORRUPT;
    fold_decision(core, type, intent);
    return KV_OK;
}

static enum kv_err replay_forget(struct core *core, struct kv_slice body)
{
    uint64_t from_txn_id, below_txn_id;
    struct kv_list open;
    if (kv_get_forget(body, &from_txn_id, &below_txn_id, &open) != KV_OK)
        return KV_CORRUPT;
    intents_forget(&core->intents, from_txn_id, below_txn_id, open);
    return KV_OK;
}

enum kv_err core_replay(struct core *core, uint64_t position, uint32_t type, struct kv_slice body)
{
    core->position = position;
    core->changed = true;
    switch (type) {
    case CORE_RECORD_APPLY:
    case CORE_RECORD_PREPARE:
        return replay_prepare(core, position, type, body);
    case CORE_RECORD_COMMIT:
    case CORE_RECORD_ABORT:
        return replay_decision(core, type, body);
    case CORE_RECORD_FORGET:
        return replay_forget(core, body);
    default:
        return KV_CORRUPT;
    }
}

/* ---- as this shard decides them: what was decoded already is not decoded from the record again ---------------- */

static void append(struct core *core, enum core_record type, bool lazy)
{
    core->position = core->world.append(core->world.ctx, type, kv_buf_peek(&core->record), lazy);
    core->changed = true;
}

void core_record_prepare(struct core *core, enum core_record type, const struct kv_msg_prepare *prepare)
{
    core->record.bytes = 0;
    kv_put_prepare(&core->record, prepare);
    append(core, type, false);
    fold_prepare(core, core->position, type, prepare);
}

void core_record_decision(struct core *core, enum core_record type, struct intent *intent)
{
    core->record.bytes = 0;
    kv_put_id(&core->record, intent->txn_id);
    append(core, type, true);
    fold_decision(core, type, intent);
}

void core_record_forget(struct core *core, uint64_t from_txn_id, uint64_t below_txn_id, struct kv_list open)
{
    core->record.bytes = 0;
    kv_put_forget_begin(&core->record, from_txn_id, below_txn_id, open.count);
    kv_buf_append(&core->record, open.encoded);
    append(core, CORE_RECORD_FORGET, true);
    intents_forget(&core->intents, from_txn_id, below_txn_id, open);
}
