/* router/txn_marks.h -- the marks of one transaction: set before its first message that may change anything leaves, ended with its outcome
 * (marks.h).
 * Owns:     nothing: the caller has a txn_mark per operation.
 * Promises: of a committed one, marks of what nothing kept can speak of end without a trace: a key that it created; a content that it
 *           was the first to bring.
 * Tests:    unit/router/test_txn.c, unit/router/test_marks.c, sim/. */
#ifndef KV_ROUTER_TXN_MARKS_H
#define KV_ROUTER_TXN_MARKS_H

#include "txn.h"

/* Of what an operation may change. Aligned as an effect is. */
struct txn_mark {
    bool is_set;
    uint32_t slot;
    uint64_t begun;
};

void txn_marks_begin(struct marks *marks, const struct txn_op *ops, size_t count, struct txn_mark *out);
/* `committed`: effects[i].existed says what the shards found. Sets effects[i].word. */
void txn_marks_end(struct marks *marks, const struct txn_op *ops, size_t count, const struct txn_mark *begun,
                   bool committed, struct txn_effect *effects);

#endif
