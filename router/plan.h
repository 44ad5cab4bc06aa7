/* router/plan.h -- what a list of operations means once its rows are locked: pure code.
 * Does:     collects the keys; applies the operations in order to the locked rows; says what each one saw and did, which
 *           contents must be read for that, and which operations each shard gets: one per key, and per content the sum of
 *           references gained or lost.
 * Promises: a later operation sees what an earlier one did. References are counted by keys before and after, so that moving a content
 *           between keys touches no shard but the keys'.
 * Fails:    KV_PRECONDITION with the index of the operation; nothing was changed.
 * Tests:    unit/router/test_plan.c, sim/. */
#ifndef KV_ROUTER_PLAN_H
#define KV_ROUTER_PLAN_H

#include "backend.h"
#include "txn.h"

#define PLAN_NOTHING SIZE_MAX /* where an index is expected */

/* A content that the operations mention. */
struct plan_content {
    struct kv_hash hash;
    const struct backend_content *given; /* brought by a PUT, or NULL */
    uint64_t object_id;       /* staged under this id; 0: in line or known to be there (the caller sets it) */
    uint64_t link_generation; /* that the id belongs to (the caller's) */
    bool want_refs;           /* a GET or HEAD saw it: the caller sets `refs` */
    bool want_bytes;          /* a GET saw it: the caller sets `content` */
    uint64_t size;
    uint64_t refs;
    struct kv_buf content; /* decoded */
    int64_t delta;         /* references gained by the operations so far */
    bool put_before;       /* an earlier operation brought it */
    size_t add_index;      /* of its ADD among plan_ops, PLAN_NOTHING when it has none */
};

struct plan;

/* `ops` are borrowed for the life of the plan. */
struct plan *plan_new(const struct backend_op *ops, size_t count, unsigned shard_count);
void plan_free(struct plan **plan);

/* Ascending, without repeats. */
const struct kv_slice *plan_keys(const struct plan *plan, size_t *count);
/* Every content that is given, and after plan_evaluate every one that is wanted. */
struct plan_content *plan_contents(struct plan *plan, size_t *count);

/* `rows` in the order of plan_keys, NULL: no key has one; their slices are borrowed by the results. May be called again with newer
 * rows. */
enum kv_err plan_evaluate(struct plan *plan, const struct txn_row *rows, uint64_t now_s, size_t *index);
/* Bytes that the results of GETs will hold, each content counted as often as it was seen. */
uint64_t plan_get_bytes(const struct plan *plan);
/* Whether anything changes; if not, the transaction only reads. */
bool plan_writes(const struct plan *plan);
/* The shards' operations, once contents are staged. */
const struct txn_op *plan_ops(struct plan *plan, size_t *count);
/* The results, once wanted contents are filled in; `effects` as txn_on_outcome gave them, NULL when nothing was written, by the
 * transaction of this id. */
const struct backend_op_result *plan_results(struct plan *plan, uint64_t txn_id, const struct txn_effect *effects);

#endif
