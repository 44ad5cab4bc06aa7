/* tests/sim/fault.c -- see fault.h. The doors between the real modules (ld --wrap), where most mistakes are made and where the
 * simulation learns which transaction is begun for whom. Without a fault they only pass on. */
#include "fault.h"

#include <stdlib.h>

#include "client.h"
#include "kv/log.h"
#include "locks.h"
#include "plan.h"
#include "shard.h"
#include "txn.h"
#include "wire/messages.h"

static const char *const names[] = {"none",
#define X(name, text, what) text,
                                    FAULT_TABLE(X)
#undef X
};

enum fault fault_named(const char *text)
{
    for (size_t i = 1; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], text) == 0)
            return (enum fault)i;
    }
    return FAULT_NONE;
}

const char *fault_name(enum fault fault)
{
    return names[fault];
}

/* ---- txn_begin: who asks; plan_ops: a forgotten reference; locks_release: a kept lock -------------------------- */

struct txn *__real_txn_begin(struct txns *txns, const struct kv_slice *keys, size_t count, txn_on_locked on_locked,
                             void *arg);
struct txn *__wrap_txn_begin(struct txns *txns, const struct kv_slice *keys, size_t count, txn_on_locked on_locked,
                             void *arg);
struct txn *__real_txn_begin_blind(struct txns *txns, const struct kv_slice *keys, size_t count, void *arg);
struct txn *__wrap_txn_begin_blind(struct txns *txns, const struct kv_slice *keys, size_t count, void *arg);
const struct txn_op *__real_plan_ops(struct plan *plan, size_t *count);
const struct txn_op *__wrap_plan_ops(struct plan *plan, size_t *count);
bool __real_locks_release(struct locks *locks, uint64_t txn_id);
bool __wrap_locks_release(struct locks *locks, uint64_t txn_id);
bool __real_txn_commit(struct txn *txn, const struct txn_op *ops, size_t count, txn_on_outcome on_outcome);
bool __wrap_txn_commit(struct txn *txn, const struct txn_op *ops, size_t count, txn_on_outcome on_outcome);
struct call *__real_calls_send(struct calls *calls, unsigned shard_index, enum kv_msg type, bool force,
                               call_write_body write_body, call_on_answer on_answer, void *arg);
struct call *__wrap_calls_send(struct calls *calls, unsigned shard_index, enum kv_msg type, bool force,
                               call_write_body write_body, call_on_answer on_answer, void *arg);

struct txn *__wrap_txn_begin(struct txns *txns, const struct kv_slice *keys, size_t count, txn_on_locked on_locked,
                             void *arg)
{
    struct txn *txn = __real_txn_begin(txns, keys, count, on_locked, arg);
    if (txn != NULL)
        client_on_begun(txn_id(txn), arg);
    return txn;
}

struct txn *__wrap_txn_begin_blind(struct txns *txns, const struct kv_slice *keys, size_t count, void *arg)
{
    struct txn *txn = __real_txn_begin_blind(txns, keys, count, arg);
    if (txn != NULL)
        client_on_begun(txn_id(txn), arg);
    return txn;
}

const struct txn_op *__wrap_plan_ops(struct plan *plan, size_t *count)
{
    const struct txn_op *ops = __real_plan_ops(plan, count);
    if (sim_running->fault != FAULT_FORGOTTEN_REFERENCE)
        return ops;
    bool sets = false;
    for (size_t i = 0; i < *count; i++)
        sets = sets || ops[i].op.kind == KV_OP_SET;
    while (sets && *count > 0 && ops[*count - 1].op.kind == KV_OP_DROP)
        --*count;
    return ops;
}

bool __wrap_locks_release(struct locks *locks, uint64_t txn_id)
{
    for (unsigned i = 0; i < sim_running->config.shard_count; i++) {
        if (sim_running->fault == FAULT_LOCK_KEPT && sim_running->shards[i]->in_abort)
            return true;
    }
    return __real_locks_release(locks, txn_id);
}

/* ---- nobody else was there ------------------------------------------------------------------------------------ */

uint64_t __real_marks_end(struct marks *marks, uint32_t slot, uint64_t begun);
uint64_t __wrap_marks_end(struct marks *marks, uint32_t slot, uint64_t begun);
uint64_t __real_marks_end_traceless(struct marks *marks, uint32_t slot, uint64_t begun);
uint64_t __wrap_marks_end_traceless(struct marks *marks, uint32_t slot, uint64_t begun);

static uint64_t prove(struct marks *marks, uint32_t slot, uint64_t word)
{
    if (word == 0 && sim_running->fault == FAULT_WRONG_PROOF)
        marks_quiet(marks, slot, marks_now(marks), &word);
    return word;
}

uint64_t __wrap_marks_end(struct marks *marks, uint32_t slot, uint64_t begun)
{
    return prove(marks, slot, __real_marks_end(marks, slot, begun));
}

uint64_t __wrap_marks_end_traceless(struct marks *marks, uint32_t slot, uint64_t begun)
{
    return prove(marks, slot, __real_marks_end_traceless(marks, slot, begun));
}

/* ---- one vote is enough ---------------------------------------------------------------------------------------- */

struct votes {
    bool decided;
    unsigned count;
    struct ballot {
        struct votes *votes;
        call_write_body write_body;
        call_on_answer on_answer;
        void *arg;
        bool answered;
    } ballots[SIM_SHARDS_MAX];
};

/* Of the transaction that asks for votes right now. */
static struct votes *voting;

static void write_ballot(void *arg, struct kv_buf *buf)
{
    const struct ballot *ballot = arg;
    ballot->write_body(ballot->arg, buf);
}

static void on_ballot(void *arg, struct kv_slice body)
{
    struct ballot *ballot = arg;
    struct votes *votes = ballot->votes;
    enum kv_err err;
    struct kv_list existed;
    if (votes->decided || kv_get_vote(body, &err, &existed) != KV_OK)
        return;
    votes->decided = true;
    struct kv_buf forged = {0};
    kv_put_vote_begin(&forged, KV_OK, 0);
    for (unsigned i = 0; i < votes->count && err == KV_OK; i++) {
        struct ballot *other = &votes->ballots[i];
        if (other != ballot)
            other->on_answer(other->arg, kv_buf_peek(&forged));
    }
    ballot->on_answer(ballot->arg, body);
    kv_buf_free(&forged);
}

struct call *__wrap_calls_send(struct calls *calls, unsigned shard_index, enum kv_msg type, bool force,
                               call_write_body write_body, call_on_answer on_answer, void *arg)
{
    if (voting == NULL || type != KV_MSG_PREPARE)
        return __real_calls_send(calls, shard_index, type, force, write_body, on_answer, arg);
    struct ballot *ballot = &voting->ballots[voting->count++];
    *ballot = (struct ballot){voting, write_body, on_answer, arg, false};
    return __real_calls_send(calls, shard_index, type, force, write_ballot, on_ballot, ballot);
}

bool __wrap_txn_commit(struct txn *txn, const struct txn_op *ops, size_t count, txn_on_outcome on_outcome)
{
    uint64_t id = txn_id(txn);
    if (sim_running->fault == FAULT_COMMIT_AFTER_ONE_VOTE) {
        struct heap *before = heap_enter(&sim_running->heap); /* until the run ends: no leak of the router's */
        voting = kv_alloc_zero(1, sizeof *voting);
        heap_enter(before);
    }
    bool asked = __real_txn_commit(txn, ops, count, on_outcome);
    voting = NULL;
    if (asked && sim_running->fault == FAULT_EARLY_ACK)
        client_ack_early(id);
    return asked;
}
