/* router/txn.c -- see txn.h. */
#include "txn.h"

#include <stdlib.h>
#include <utlist.h>

#include "kv/log.h"
#include "kv/placement.h"
#include "txn_marks.h"
#include "wire/messages.h"

enum state { LOCKING, LOCKED, PREPARING, ENDING };

/* One shard's part in a transaction. */
struct part {
    struct txn *txn;
    unsigned shard_index;
    size_t key_count;
    size_t op_count;
    struct call *call;    /* the one request under way to this shard */
    struct kv_buf locked; /* body of its LOCKED, which the rows borrow from */
};

struct txn {
    struct txns *txns;
    uint64_t id;
    enum state state;
    const struct kv_slice *keys;
    uint8_t *key_shards;
    size_t key_count;
    struct txn_row *rows;
    const struct txn_op *ops;
    size_t op_count;
    struct txn_effect *effects; /* one per operation */
    struct txn_mark *marks;     /* one per operation, behind the effects; NULL when nobody looks */
    bool held;
    unsigned shard_next;  /* LOCKING: the next one to ask */
    unsigned waiting;     /* answers that are missing */
    kv_shard_set lockers; /* shards that were asked for locks */
    kv_shard_set participants;
    txn_on_locked on_locked;
    txn_on_outcome on_outcome;
    txn_on_released on_released;
    void *arg;
    struct txn *prev, *next; /* in txns.active, ascending ids */
    struct part parts[];     /* one per shard */
};

struct txns {
    struct calls *calls;
    unsigned shard_count;
    struct txns_world world;
    struct marks *marks; /* NULL: nobody looks */
    struct txn *active;
    size_t active_count;
};

struct txns *txns_new(struct calls *calls, unsigned shard_count, const struct txns_world *world)
{
    struct txns *txns = kv_alloc_zero(1, sizeof *txns);
    txns->calls = calls;
    txns->shard_count = shard_count;
    txns->world = *world;
    return txns;
}

uint64_t txns_ids(const struct txns *txns, uint64_t below_txn_id, struct kv_buf *out)
{
    const struct txn *txn = txns->active;
    for (; txn != NULL && txn->id < below_txn_id; txn = txn->next)
        kv_buf_append(out, kv_slice(&txn->id, sizeof txn->id));
    return txn == NULL ? UINT64_MAX : txn->id;
}

void txns_use_marks(struct txns *txns, struct marks *marks)
{
    kv_assert(txns->active == NULL);
    txns->marks = marks;
}

size_t txns_active(const struct txns *txns)
{
    return txns->active_count;
}

uint64_t txn_id(const struct txn *txn)
{
    return txn->id;
}

/* Before the first message leaves that may change them. */
static void mark_all(struct txn *txn)
{
    if (txn->txns->marks == NULL)
        return;
    txn->marks = (struct txn_mark *)(void *)(txn->effects + txn->op_count);
    txn_marks_begin(txn->txns->marks, txn->ops, txn->op_count, txn->marks);
}

static void unmark_all(struct txn *txn, bool committed)
{
    if (txn->marks != NULL)
        txn_marks_end(txn->txns->marks, txn->ops, txn->op_count, txn->marks, committed, txn->effects);
    txn->marks = NULL;
}

static void end(struct txn *txn)
{
    struct txns *txns = txn->txns;
    unmark_all(txn, false);
    for (unsigned i = 0; i < txns->shard_count; i++) {
        calls_cancel(txns->calls, txn->parts[i].call);
        kv_buf_free(&txn->parts[i].locked);
    }
    DL_DELETE(txns->active, txn);
    txns->active_count--;
    free(txn->key_shards);
    free(txn->rows);
    free(txn->effects);
    free(txn);
}

void txns_free(struct txns **txns)
{
    if (*txns == NULL)
        return;
    while ((*txns)->active != NULL)
        end((*txns)->active);
    free(*txns);
    *txns = NULL;
}

/* Sends one request to each shard of the set and counts the answers to come. */
static void send_all(struct txn *txn, kv_shard_set shards, enum kv_msg type, call_write_body write_body,
                     call_on_answer on_answer)
{
    for (unsigned i = 0; i < txn->txns->shard_count; i++) {
        if ((shards & kv_shard_bit(i)) == 0)
            continue;
        struct part *part = &txn->parts[i];
        calls_cancel(txn->txns->calls, part->call);
        part->call = calls_send(txn->txns->calls, i, type, true, write_body, on_answer, part);
        txn->waiting++;
    }
}

static void write_id(void *arg, struct kv_buf *buf)
{
    const struct part *part = arg;
    kv_put_id(buf, part->txn->id);
}

/* ---- lock ----------------------------------------------------------------------------------------------------- */

static void lock_next(struct txn *txn);

static void write_lock(void *arg, struct kv_buf *buf)
{
    const struct part *part = arg;
    const struct txn *txn = part->txn;
    kv_put_lock_begin(buf, txn->id, part->key_count);
    for (size_t i = 0; i < txn->key_count; i++) {
        if (txn->key_shards[i] == part->shard_index)
            kv_put_key(buf, txn->keys[i]);
    }
}

/* The shard is ours and speaks our version: an answer that does not fit is a bug, not a claim to be weighed. */
static void take_rows(struct part *part, struct kv_slice body)
{
    struct txn *txn = part->txn;
    kv_buf_append(&part->locked, body);
    enum kv_err err;
    struct kv_list rows;
    enum kv_err decoded = kv_get_locked(kv_buf_peek(&part->locked), &err, &rows);
    kv_assert(decoded == KV_OK && err == KV_OK && rows.count == part->key_count);
    for (size_t i = 0; i < txn->key_count; i++) {
        if (txn->key_shards[i] == part->shard_index)
            kv_next_row(&rows, &txn->rows[i].present, &txn->rows[i].row);
    }
}

static void on_locked_answer(void *arg, struct kv_slice body)
{
    struct part *part = arg;
    part->call = NULL;
    take_rows(part, body);
    lock_next(part->txn);
}

/* The next shard in ascending order, so that two transactions never wait for each other. */
static void lock_next(struct txn *txn)
{
    while (txn->shard_next < txn->txns->shard_count && txn->parts[txn->shard_next].key_count == 0)
        txn->shard_next++;
    if (txn->shard_next == txn->txns->shard_count) {
        txn->state = LOCKED;
        txn->on_locked(txn->arg, txn->rows);
        return;
    }
    struct part *part = &txn->parts[txn->shard_next++];
    txn->lockers |= kv_shard_bit(part->shard_index);
    part->call = calls_send(txn->txns->calls, part->shard_index, KV_MSG_LOCK, true, write_lock, on_locked_answer, part);
}

static struct txn *txn_new(struct txns *txns, const struct kv_slice *keys, size_t count, void *arg)
{
    kv_assert(count > 0);
    if (txns->active_count >= TXNS_ACTIVE_MAX)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        if (calls_waiting(txns->calls, kv_shard_of(keys[i], txns->shard_count)) >= CALLS_WAITING_MAX)
            return NULL;
    }
    struct txn *txn = kv_alloc_zero(1, sizeof *txn + txns->shard_count * sizeof *txn->parts);
    txn->txns = txns;
    txn->id = txns->world.next_id(txns->world.ctx);
    txn->keys = keys;
    txn->key_count = count;
    txn->arg = arg;
    for (unsigned i = 0; i < txns->shard_count; i++)
        txn->parts[i] = (struct part){.txn = txn, .shard_index = i};
    DL_APPEND(txns->active, txn);
    txns->active_count++;
    return txn;
}

struct txn *txn_begin(struct txns *txns, const struct kv_slice *keys, size_t count, txn_on_locked on_locked, void *arg)
{
    struct txn *txn = txn_new(txns, keys, count, arg);
    if (txn == NULL)
        return NULL;
    txn->key_shards = kv_alloc(count);
    txn->rows = kv_alloc_zero(count, sizeof *txn->rows);
    txn->on_locked = on_locked;
    for (size_t i = 0; i < count; i++) {
        txn->key_shards[i] = (uint8_t)kv_shard_of(keys[i], txns->shard_count);
        txn->parts[txn->key_shards[i]].key_count++;
    }
    lock_next(txn);
    return txn;
}

struct txn *txn_begin_blind(struct txns *txns, const struct kv_slice *keys, size_t count, void *arg)
{
    struct txn *txn = txn_new(txns, keys, count, arg);
    if (txn != NULL)
        txn->state = LOCKED; /* by nobody: what the shards find when they prepare decides */
    return txn;
}

/* ---- prepare, decide ------------------------------------------------------------------------------------------ */

static void on_through(void *arg, struct kv_slice body)
{
    struct part *part = arg;
    struct txn *txn = part->txn;
    part->call = NULL;
    enum kv_err err;
    if (kv_get_done(body, &err) != KV_OK || err != KV_OK)
        txn->held = false;
    if (--txn->waiting > 0)
        return;
    if (txn->on_released != NULL)
        txn->on_released(txn->arg, txn->held);
    end(txn);
}

static void abort_everywhere(struct txn *txn, enum kv_err err)
{
    txn->state = ENDING;
    txn->waiting = 0;
    send_all(txn, txn->participants | txn->lockers, KV_MSG_ABORT, write_id, on_through);
    txn->on_outcome(txn->arg, err, NULL);
}

/* Whoever reads from now on finds the votes, and waits for the decision where that matters: no need for marks. The client comes
 * first: what is queued first leaves the loop first, and each shard that sleeps costs it 15 us to wake. */
static void commit_everywhere(struct txn *txn)
{
    bool alone = txn->participants == (txn->participants & -txn->participants);
    txn->state = ENDING;
    unmark_all(txn, true);
    txn->on_outcome(txn->arg, KV_OK, txn->effects);
    if (alone)
        end(txn);
    else
        send_all(txn, txn->participants, KV_MSG_COMMIT, write_id, on_through);
}

static void take_existed(struct part *part, struct kv_list flags)
{
    struct txn *txn = part->txn;
    for (size_t i = 0; i < txn->op_count; i++) {
        if (txn->ops[i].shard_index == part->shard_index && txn->ops[i].op.kind == KV_OP_ADD)
            kv_next_bool(&flags, &txn->effects[i].existed);
    }
}

static void on_vote(void *arg, struct kv_slice body)
{
    struct part *part = arg;
    struct txn *txn = part->txn;
    part->call = NULL;
    enum kv_err err;
    struct kv_list existed;
    enum kv_err decoded = kv_get_vote(body, &err, &existed);
    kv_assert(decoded == KV_OK);
    if (err != KV_OK) {
        abort_everywhere(txn, err);
        return;
    }
    take_existed(part, existed);
    if (--txn->waiting == 0)
        commit_everywhere(txn);
}

static void write_prepare(void *arg, struct kv_buf *buf)
{
    const struct part *part = arg;
    const struct txn *txn = part->txn;
    kv_put_prepare_begin(buf, txn->id, txn->participants, part->op_count);
    for (size_t i = 0; i < txn->op_count; i++) {
        if (txn->ops[i].shard_index == part->shard_index)
            kv_put_op(buf, &txn->ops[i].op);
    }
}

bool txn_commit(struct txn *txn, const struct txn_op *ops, size_t count, txn_on_outcome on_outcome)
{
    kv_assert(txn->state == LOCKED && count > 0);
    for (size_t i = 0; i < count; i++) {
        if (calls_waiting(txn->txns->calls, ops[i].shard_index) >= CALLS_WAITING_MAX)
            return false;
    }
    txn->state = PREPARING;
    txn->ops = ops;
    txn->op_count = count;
    txn->effects = kv_alloc_zero(count, sizeof *txn->effects + sizeof *txn->marks);
    txn->on_outcome = on_outcome;
    for (size_t i = 0; i < count; i++) {
        txn->participants |= kv_shard_bit(ops[i].shard_index);
        txn->parts[ops[i].shard_index].op_count++;
    }
    kv_assert((txn->lockers & ~txn->participants) == 0);
    bool alone = txn->participants == (txn->participants & -txn->participants);
    mark_all(txn);
    send_all(txn, txn->participants, alone ? KV_MSG_APPLY : KV_MSG_PREPARE, write_prepare, on_vote);
    return true;
}

void txn_release(struct txn *txn, txn_on_released on_released)
{
    kv_assert((txn->state == LOCKED || txn->state == LOCKING) && txn->lockers != 0);
    txn->state = ENDING;
    txn->held = true;
    txn->on_released = on_released;
    send_all(txn, txn->lockers, KV_MSG_RELEASE, write_id, on_through);
}

bool txn_give_up(struct txn *txn)
{
    if (txn->state == PREPARING)
        return false;
    if (txn->lockers == 0) { /* begun without locks: nobody has heard of it */
        end(txn);
        return true;
    }
    if (txn->state == LOCKING || txn->state == LOCKED)
        txn_release(txn, NULL);
    txn->on_released = NULL;
    return true;
}
