/* router/txn.h -- two-phase commit, the coordinator's half: pure code over calls.h, run as it is by the simulation.
 * Does:     lock at each shard that owns a key, in ascending order; then prepare everywhere at once (or apply at the only
 *           participant); all votes yes = committed, one refusal = aborted.
 * Owns:     the transactions of one router thread until every participant has said that it is through.
 * Promises: on_locked, on_outcome and on_released run at most once each, never from within the function that started them.
 *           A decision is told to every participant, however often links break. While a vote is missing the outcome is open:
 *           nothing is aborted because of a timeout.
 * Limits:   TXNS_ACTIVE_MAX transactions; CALLS_WAITING_MAX requests to a shard that does not answer: then KV_OVERLOADED.
 * Fails:    KV_CONFLICT: a row changed after its lock was lost with its shard; begin again with a new transaction.
 *           KV_STALE: a content to refer to is gone; stage it again. KV_NO_SPACE, KV_OVERLOADED: refused. All of them: surely
 *           not done, everything released.
 * Tests:    unit/router/test_txn.c, sim/. */
#ifndef KV_ROUTER_TXN_H
#define KV_ROUTER_TXN_H

#include "calls.h"
#include "kv/model.h"
#include "marks.h"

#ifndef TXNS_ACTIVE_MAX         /* the simulation has fewer */
#define TXNS_ACTIVE_MAX 131072u /* of one thread */
#endif

struct txns; /* the coordinator of one router thread */
struct txn;

struct txns_world {
    void *ctx;
    uint64_t (*next_id)(void *ctx); /* larger than any before in the whole router */
};

struct txns *txns_new(struct calls *calls, unsigned shard_count, const struct txns_world *world);
void txns_free(struct txns **txns);
/* Appends the ids below `below_txn_id` that are not through everywhere, ascending, each a uint64_t, and returns the smallest of
 * the others; UINT64_MAX: there is none. */
uint64_t txns_ids(const struct txns *txns, uint64_t below_txn_id, struct kv_buf *out);
/* Before any transaction: what one changes is marked until its outcome is all that a read can find (marks.h). */
void txns_use_marks(struct txns *txns, struct marks *marks);
size_t txns_active(const struct txns *txns);

struct txn_row {
    bool present;
    struct kv_row row; /* content_type is a peek that lives as long as the transaction's lock phase */
};

/* All locks are held; `rows` in the order of the keys. The callee calls txn_commit or txn_release, now or later. */
typedef void (*txn_on_locked)(void *arg, const struct txn_row *rows);
/* What is known of an operation once it is committed. */
struct txn_effect {
    bool existed;  /* ADD: the content was here before */
    uint64_t word; /* marks_end of its key or content: not 0 if nobody else wrote there meanwhile */
};

/* `effects[i]` of op i. NULL unless KV_OK. The transaction needs nothing of the caller's any more. */
typedef void (*txn_on_outcome)(void *arg, enum kv_err err, const struct txn_effect *effects);
/* `held`: all locks were held without a break until now, so what was read under them was one state. */
typedef void (*txn_on_released)(void *arg, bool held);

/* Starts locking `count` >= 1 keys, ascending, without repeats. Keys are borrowed until the outcome, the release or the giving up.
 * NULL when there are too many already, or a shard's queue is full (KV_OVERLOADED). */
struct txn *txn_begin(struct txns *txns, const struct kv_slice *keys, size_t count, txn_on_locked on_locked, void *arg);

/* Starts without locks, for a caller who believes to know the rows, and saves a round to each shard: txn_commit comes next, with
 * operations that say so (expect_txn). A shard where a row is another, or locked, refuses: KV_CONFLICT, and the caller begins
 * again with locks. Nobody waits for a lock here, so no order is needed. NULL as above. */
struct txn *txn_begin_blind(struct txns *txns, const struct kv_slice *keys, size_t count, void *arg);

struct txn_op {
    unsigned shard_index;
    struct kv_op op;
};

/* Ends a locked transaction with these operations; every locked key has a SET, CLEAR or CHECK among them. `ops` and what they
 * point to are borrowed until the outcome. False: the queue of a shard that takes part is full (KV_OVERLOADED), nobody was asked,
 * and the transaction stays locked. */
bool txn_commit(struct txn *txn, const struct txn_op *ops, size_t count, txn_on_outcome on_outcome);
/* Ends a locked transaction without changing anything. */
void txn_release(struct txn *txn, txn_on_released on_released);
/* The caller cannot wait. True: surely not done, locks on their way to be released, no callback will run. False: votes are
 * out, the outcome is open and on_outcome will still run. */
bool txn_give_up(struct txn *txn);
uint64_t txn_id(const struct txn *txn);

#endif
