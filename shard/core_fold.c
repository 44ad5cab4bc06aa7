/* shard/core_fold.c -- the records of the journal, and what each does to the state of a core: the only way in which it changes, live as
 * at replay. See core.h. */
#include "core_internal.h"

#include <utlist.h>

#include "kv/log.h"

/* ---- folding records: the only way in which state changes ----------------------------------------------------- */

void core_take_locks(struct core *core, uint64_t txn_id, struct kv_list ops)
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
        core_take_locks(core, txn_id, ops);
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
uint64_t core_record(struct core *core, enum core_record type, struct kv_slice body, bool lazy)
{
    uint64_t position = core->world.append(core->world.ctx, type, body, lazy);
    enum kv_err err = fold(core, position, type, body);
    kv_assert(err == KV_OK);
    return position;
}

uint64_t core_record_id(struct core *core, enum core_record type, uint64_t id)
{
    struct kv_buf body = {0};
    kv_put_id(&body, id);
    uint64_t position = core_record(core, type, kv_buf_peek(&body), true);
    kv_buf_free(&body);
    return position;
}
