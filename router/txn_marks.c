/* router/txn_marks.c -- see txn_marks.h. */
#include "txn_marks.h"

static struct txn_mark begin(struct marks *marks, struct kv_slice bytes)
{
    uint32_t slot = marks_slot(marks, marks_hash(marks, bytes));
    return (struct txn_mark){true, slot, marks_begin(marks, slot)};
}

void txn_marks_begin(struct marks *marks, const struct txn_op *ops, size_t count, struct txn_mark *out)
{
    for (size_t i = 0; i < count; i++) {
        const struct kv_op *op = &ops[i].op;
        if (op->kind == KV_OP_ADD || op->kind == KV_OP_DROP)
            out[i] = begin(marks, kv_hash_slice(&op->hash));
        else if (op->kind != KV_OP_CHECK)
            out[i] = begin(marks, op->key);
    }
}

/* Once it is committed: what is kept of other keys cannot speak of it. */
static bool concerns_nobody(const struct kv_op *op, bool existed)
{
    return op->kind == KV_OP_ADD ? !existed : op->kind == KV_OP_SET && op->expect_txn == 0;
}

void txn_marks_end(struct marks *marks, const struct txn_op *ops, size_t count, const struct txn_mark *begun,
                   bool committed, struct txn_effect *effects)
{
    for (size_t i = 0; i < count; i++) {
        const struct txn_mark *mark = &begun[i];
        if (!mark->is_set)
            continue;
        bool traceless = committed && concerns_nobody(&ops[i].op, effects[i].existed);
        effects[i].word =
            traceless ? marks_end_traceless(marks, mark->slot, mark->begun) : marks_end(marks, mark->slot, mark->begun);
    }
}
