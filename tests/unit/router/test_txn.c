/* Goal: lock in order, decide by all votes, tell the decision until it is heard; give up only what is surely not done.
 * Method: txn.h over real calls; the test plays three shards and answers in any order (txn_rig.h). */
#include "txn_rig.h"

#include "txn.h"

struct seen {
    struct txn_rig rig;
    struct txns *txns;
    struct txn *txn;
    uint64_t ids;
    unsigned locked, outcomes, released;
    enum kv_err err;
    bool held;
    bool present[RIG_SHARDS];
    struct kv_slice keys[RIG_SHARDS];
    struct txn_op ops[RIG_SHARDS];
    uint64_t words[RIG_SHARDS];
    size_t key_count;
};

static uint64_t next_id(void *ctx)
{
    return ++((struct seen *)ctx)->ids;
}

static void on_locked(void *arg, const struct txn_row *rows)
{
    struct seen *seen = arg;
    seen->locked++;
    for (size_t i = 0; i < seen->key_count; i++)
        seen->present[i] = rows[i].present;
}

static void on_outcome(void *arg, enum kv_err err, const struct txn_effect *effects)
{
    struct seen *seen = arg;
    seen->outcomes++;
    seen->err = err;
    cr_expect_eq(effects != NULL, err == KV_OK);
    for (size_t i = 0; i < seen->key_count && err == KV_OK; i++)
        seen->words[i] = effects[i].word;
}

static void on_released(void *arg, bool held)
{
    struct seen *seen = arg;
    seen->released++;
    seen->held = held;
}

static int compare(const void *a, const void *b)
{
    return kv_slice_compare(*(const struct kv_slice *)a, *(const struct kv_slice *)b);
}

/* With one key of each shard of the set, and no transaction yet. */
static struct seen *seen_new(kv_shard_set shards)
{
    struct seen *seen = kv_alloc_zero(1, sizeof *seen);
    txn_rig_open(&seen->rig);
    seen->txns = txns_new(seen->rig.calls, RIG_SHARDS, &(struct txns_world){seen, next_id});
    for (unsigned i = 0; i < RIG_SHARDS; i++) {
        if ((shards & kv_shard_bit(i)) != 0)
            seen->keys[seen->key_count++] = kv_slice_text(txn_rig_key(i));
    }
    qsort(seen->keys, seen->key_count, sizeof *seen->keys, compare);
    return seen;
}

static struct seen *begin(kv_shard_set shards)
{
    struct seen *seen = seen_new(shards);
    seen->txn = txn_begin(seen->txns, seen->keys, seen->key_count, on_locked, seen);
    return seen;
}

/* Without locks. */
static struct seen *begin_blind(kv_shard_set shards)
{
    struct seen *seen = seen_new(shards);
    seen->txn = txn_begin_blind(seen->txns, seen->keys, seen->key_count, seen);
    return seen;
}

static void end(struct seen *seen)
{
    cr_expect_eq(txns_active(seen->txns), 0u);
    struct kv_buf ids = {0};
    cr_expect_eq(txns_ids(seen->txns, UINT64_MAX, &ids), UINT64_MAX);
    cr_expect_eq(ids.bytes, 0u);
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        cr_expect_eq(calls_waiting(seen->rig.calls, i), 0u);
    txns_free(&seen->txns);
    txn_rig_close(&seen->rig);
    free(seen);
}

static void grant(struct seen *seen, unsigned shard_index)
{
    struct kv_buf body = {0};
    uint64_t request_id;
    cr_assert_eq(txn_rig_take(&seen->rig, shard_index, &request_id), KV_MSG_LOCK);
    kv_put_locked_begin(&body, KV_OK, 1);
    kv_put_row_or_nil(&body, NULL);
    txn_rig_answer(&seen->rig, shard_index, KV_MSG_LOCKED, request_id, &body);
    kv_buf_free(&body);
}

static void commit(struct seen *seen)
{
    for (size_t i = 0; i < seen->key_count; i++)
        seen->ops[i] =
            (struct txn_op){kv_shard_of(seen->keys[i], RIG_SHARDS), {.kind = KV_OP_SET, .key = seen->keys[i]}};
    cr_expect(txn_commit(seen->txn, seen->ops, seen->key_count, on_outcome));
}

static uint64_t take_prepare(struct seen *seen, unsigned shard_index)
{
    uint64_t request_id = 0;
    cr_assert_eq(txn_rig_take(&seen->rig, shard_index, &request_id), KV_MSG_PREPARE);
    return request_id;
}

Test(txn, locks_shard_by_shard_in_ascending_order)
{
    struct seen *seen = begin(7);
    uint64_t request_id;
    for (unsigned i = 0; i < RIG_SHARDS; i++) {
        cr_expect_eq(seen->locked, 0u);
        for (unsigned later = i + 1; later < RIG_SHARDS; later++)
            cr_expect_eq(txn_rig_take(&seen->rig, later, &request_id), 0, "asked too early");
        grant(seen, i);
    }
    cr_expect_eq(seen->locked, 1u);
    txn_release(seen->txn, on_released);
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        txn_rig_expect_done(&seen->rig, i, KV_MSG_RELEASE);
    cr_expect(seen->released == 1 && seen->held);
    end(seen);
}

Test(txn, all_votes_decide_and_the_decision_goes_everywhere)
{
    struct seen *seen = begin(7);
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        grant(seen, i);
    commit(seen);
    uint64_t ids[RIG_SHARDS], request_id;
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        ids[i] = take_prepare(seen, i);
    txn_rig_vote(&seen->rig, 2, ids[2], KV_OK);
    txn_rig_vote(&seen->rig, 0, ids[0], KV_OK);
    cr_expect_eq(seen->outcomes, 0u);
    cr_expect_eq(txn_rig_take(&seen->rig, 0, &request_id), 0, "no decision without the last vote");
    txn_rig_vote(&seen->rig, 1, ids[1], KV_OK);
    cr_expect(seen->outcomes == 1 && seen->err == KV_OK);
    struct kv_buf none = {0};
    cr_expect_eq(txns_ids(seen->txns, 0, &none), 1u, "not forgotten until all have heard");
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        txn_rig_expect_done(&seen->rig, i, KV_MSG_COMMIT);
    end(seen);
}

static uint32_t slot_of(const struct marks *marks, struct kv_slice key)
{
    return marks_slot(marks, marks_hash(marks, key));
}

/* Of a transaction's keys. */
static bool are_marked(const struct seen *seen, const struct marks *marks)
{
    size_t marked = 0;
    uint64_t word;
    for (size_t i = 0; i < seen->key_count; i++)
        marked += !marks_quiet(marks, slot_of(marks, seen->keys[i]), marks_now(marks), &word);
    cr_assert(marked == 0 || marked == seen->key_count);
    return marked > 0;
}

Test(txn, what_changes_is_marked_from_the_first_prepare_until_it_is_committed_or_aborted_everywhere)
{
    for (int refused = 0; refused < 2; refused++) {
        struct marks *marks = marks_new(4096, 7);
        struct seen *seen = seen_new(3);
        txns_use_marks(seen->txns, marks);
        seen->txn = txn_begin(seen->txns, seen->keys, seen->key_count, on_locked, seen);
        grant(seen, 0);
        cr_expect_not(are_marked(seen, marks), "locks change nothing");
        grant(seen, 1);
        commit(seen);
        cr_expect(are_marked(seen, marks), "before a frame has left");
        uint64_t zero = take_prepare(seen, 0), one = take_prepare(seen, 1);
        txn_rig_vote(&seen->rig, 0, zero, KV_OK);
        txn_rig_vote(&seen->rig, 1, one, refused ? KV_NO_SPACE : KV_OK);
        cr_expect_eq(seen->outcomes, 1u);
        cr_expect_eq(are_marked(seen, marks), refused, "who asks a shard that has not heard yet waits, or finds votes");
        for (size_t i = 0; i < seen->key_count && !refused; i++)
            cr_expect(marks_unchanged(marks, slot_of(marks, seen->keys[i]), seen->words[i]));
        txn_rig_expect_done(&seen->rig, 0, refused ? KV_MSG_ABORT : KV_MSG_COMMIT);
        cr_expect_eq(are_marked(seen, marks), refused);
        txn_rig_expect_done(&seen->rig, 1, refused ? KV_MSG_ABORT : KV_MSG_COMMIT);
        cr_expect_not(are_marked(seen, marks));
        cr_expect_gt(marks_now(marks), 0);
        end(seen);
        marks_free(&marks);
    }
}

/* The words of its keys behind a transaction that sets them. */
static void set_all(struct seen *seen, uint64_t expect_txn)
{
    seen->txn = txn_begin_blind(seen->txns, seen->keys, seen->key_count, seen);
    for (size_t i = 0; i < seen->key_count; i++)
        seen->ops[i] = (struct txn_op){kv_shard_of(seen->keys[i], RIG_SHARDS),
                                       {.kind = KV_OP_SET, .key = seen->keys[i], .expect_txn = expect_txn}};
    cr_expect(txn_commit(seen->txn, seen->ops, seen->key_count, on_outcome));
    for (unsigned i = 0; i < seen->key_count; i++)
        txn_rig_vote(&seen->rig, i, take_prepare(seen, i), KV_OK);
    for (unsigned i = 0; i < seen->key_count; i++)
        txn_rig_expect_done(&seen->rig, i, KV_MSG_COMMIT);
}

/* What is kept of other keys in the same slots stays true when a key is created, and not when one is changed. */
Test(txn, a_new_key_leaves_the_word_of_its_slot)
{
    struct marks *marks = marks_new(4096, 7);
    struct seen *seen = seen_new(3);
    txns_use_marks(seen->txns, marks);
    set_all(seen, 0); /* the first in its slots: ends like any other */
    uint64_t before = seen->words[0];
    set_all(seen, 0);
    cr_expect_eq(seen->words[0], before);
    set_all(seen, 2);
    cr_expect_gt(seen->words[0], before);
    end(seen);
    marks_free(&marks);
}

Test(txn, one_refusal_aborts_everywhere)
{
    struct seen *seen = begin(7);
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        grant(seen, i);
    commit(seen);
    uint64_t ids[RIG_SHARDS];
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        ids[i] = take_prepare(seen, i);
    txn_rig_vote(&seen->rig, 0, ids[0], KV_OK);
    txn_rig_vote(&seen->rig, 1, ids[1], KV_NO_SPACE);
    cr_expect(seen->outcomes == 1 && seen->err == KV_NO_SPACE);
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        txn_rig_expect_done(&seen->rig, i, KV_MSG_ABORT);
    txn_rig_vote(&seen->rig, 2, ids[2], KV_OK); /* too late: it finds nobody */
    cr_expect_eq(seen->outcomes, 1u);
    end(seen);
}

Test(txn, one_participant_needs_no_vote)
{
    struct seen *seen = begin(2);
    uint64_t request_id = 0;
    grant(seen, 1);
    commit(seen);
    cr_expect_eq(txn_rig_take(&seen->rig, 1, &request_id), KV_MSG_APPLY);
    txn_rig_vote(&seen->rig, 1, request_id, KV_OK);
    cr_expect(seen->outcomes == 1 && seen->err == KV_OK);
    cr_expect_eq(txn_rig_take(&seen->rig, 1, &request_id), 0, "nothing to commit");
    end(seen);
}

/* A link breaks in each phase: what was not answered is asked again, under another request id or not, and decided once. */
Test(txn, a_broken_link_changes_nothing)
{
    struct seen *seen = begin(3);
    uint64_t request_id = 0;
    cr_assert_eq(txn_rig_take(&seen->rig, 0, &request_id), KV_MSG_LOCK);
    calls_link_down(seen->rig.calls, 0);
    calls_link_up(seen->rig.calls, 0);
    grant(seen, 0);
    grant(seen, 1);
    commit(seen);
    uint64_t zero = take_prepare(seen, 0);
    take_prepare(seen, 1);
    txn_rig_vote(&seen->rig, 0, zero, KV_OK);
    calls_link_down(seen->rig.calls, 1);
    cr_expect_eq(seen->outcomes, 0u, "a missing vote is no refusal");
    calls_link_up(seen->rig.calls, 1);
    txn_rig_vote(&seen->rig, 1, take_prepare(seen, 1), KV_OK);
    cr_expect(seen->outcomes == 1 && seen->err == KV_OK);
    cr_assert_eq(txn_rig_take(&seen->rig, 0, &request_id), KV_MSG_COMMIT);
    calls_link_down(seen->rig.calls, 0);
    calls_link_up(seen->rig.calls, 0);
    txn_rig_expect_done(&seen->rig, 0, KV_MSG_COMMIT);
    txn_rig_expect_done(&seen->rig, 1, KV_MSG_COMMIT);
    end(seen);
}

Test(txn, lost_locks_are_told)
{
    struct seen *seen = begin(3);
    uint64_t request_id = 0;
    grant(seen, 0);
    grant(seen, 1);
    txn_release(seen->txn, on_released);
    cr_assert_eq(txn_rig_take(&seen->rig, 0, &request_id), KV_MSG_RELEASE);
    txn_rig_done(&seen->rig, 0, request_id, KV_CONFLICT);
    cr_expect_eq(seen->released, 0u);
    txn_rig_expect_done(&seen->rig, 1, KV_MSG_RELEASE);
    cr_expect(seen->released == 1 && !seen->held);
    end(seen);
}

Test(txn, gives_up_while_it_waits_for_locks)
{
    struct seen *seen = begin(3);
    uint64_t lock_id = 0;
    cr_assert_eq(txn_rig_take(&seen->rig, 0, &lock_id), KV_MSG_LOCK);
    cr_expect(txn_give_up(seen->txn), "surely not done");
    struct kv_buf late = {0};
    kv_put_locked_begin(&late, KV_OK, 0);
    txn_rig_answer(&seen->rig, 0, KV_MSG_LOCKED, lock_id, &late);
    kv_buf_free(&late);
    txn_rig_expect_done(&seen->rig, 0, KV_MSG_RELEASE);
    cr_expect_eq(seen->locked + seen->outcomes + seen->released, 0u, "nobody waits for a callback");
    end(seen);
}

Test(txn, does_not_give_up_what_is_open)
{
    struct seen *seen = begin(3);
    grant(seen, 0);
    grant(seen, 1);
    commit(seen);
    uint64_t zero = take_prepare(seen, 0), one = take_prepare(seen, 1);
    cr_expect_not(txn_give_up(seen->txn));
    txn_rig_vote(&seen->rig, 0, zero, KV_OK);
    txn_rig_vote(&seen->rig, 1, one, KV_OK);
    cr_expect(seen->outcomes == 1 && seen->err == KV_OK);
    txn_rig_expect_done(&seen->rig, 0, KV_MSG_COMMIT);
    txn_rig_expect_done(&seen->rig, 1, KV_MSG_COMMIT);
    end(seen);
}

Test(txn, frees_what_is_under_way)
{
    struct seen *seen = begin(7);
    grant(seen, 0);
    txns_free(&seen->txns);
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        cr_expect_eq(calls_waiting(seen->rig.calls, i), 0u);
    txn_rig_close(&seen->rig);
    free(seen);
}

/* ---- without locks -------------------------------------------------------------------------------------------- */

Test(txn_blind, asks_for_votes_at_once)
{
    struct seen *seen = begin_blind(7);
    uint64_t ids[RIG_SHARDS], request_id;
    cr_expect_eq(txn_rig_take(&seen->rig, 0, &request_id), 0, "nothing is asked before the operations are known");
    commit(seen);
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        ids[i] = take_prepare(seen, i);
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        txn_rig_vote(&seen->rig, i, ids[i], KV_OK);
    cr_expect(seen->outcomes == 1 && seen->err == KV_OK && seen->locked == 0);
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        txn_rig_expect_done(&seen->rig, i, KV_MSG_COMMIT);
    end(seen);
}

Test(txn_blind, one_participant_is_asked_once)
{
    struct seen *seen = begin_blind(2);
    uint64_t request_id = 0;
    commit(seen);
    cr_expect_eq(txn_rig_take(&seen->rig, 1, &request_id), KV_MSG_APPLY);
    txn_rig_vote(&seen->rig, 1, request_id, KV_OK);
    cr_expect(seen->outcomes == 1 && seen->err == KV_OK);
    end(seen);
}

/* The key is there already: only those who were asked hear of the abort, and nobody of locks. */
Test(txn_blind, a_key_that_exists_is_a_conflict)
{
    struct seen *seen = begin_blind(3);
    uint64_t request_id;
    commit(seen);
    uint64_t zero = take_prepare(seen, 0);
    take_prepare(seen, 1);
    txn_rig_vote(&seen->rig, 0, zero, KV_CONFLICT);
    cr_expect(seen->outcomes == 1 && seen->err == KV_CONFLICT);
    txn_rig_expect_done(&seen->rig, 0, KV_MSG_ABORT);
    txn_rig_expect_done(&seen->rig, 1, KV_MSG_ABORT);
    cr_expect_eq(txn_rig_take(&seen->rig, 2, &request_id), 0);
    end(seen);
}

Test(txn_blind, gives_up_without_a_word_before_it_asks)
{
    struct seen *seen = begin_blind(3);
    cr_expect(txn_give_up(seen->txn));
    for (unsigned i = 0; i < RIG_SHARDS; i++) {
        uint64_t request_id;
        cr_expect_eq(txn_rig_take(&seen->rig, i, &request_id), 0, "there is nothing to release");
    }
    end(seen);
}

/* ---- limits --------------------------------------------------------------------------------------------------- */

static void write_nothing(void *arg, struct kv_buf *buf)
{
    (void)arg;
    kv_put_empty(buf);
}

static void on_nothing(void *arg, struct kv_slice body)
{
    (void)arg;
    (void)body;
}

/* Of a shard that hangs: its link is up, and it answers nothing. */
static void fill_queue(struct seen *seen, unsigned shard_index)
{
    while (calls_send(seen->rig.calls, shard_index, KV_MSG_STATS, false, write_nothing, on_nothing, NULL) != NULL)
        calls_output(seen->rig.calls, shard_index)->bytes = 0;
}

static void end_filled(struct seen *seen)
{
    txns_free(&seen->txns);
    txn_rig_close(&seen->rig);
    free(seen);
}

Test(txn, does_not_begin_behind_a_full_queue)
{
    struct seen *seen = seen_new(3);
    fill_queue(seen, 1);
    cr_expect_null(txn_begin(seen->txns, seen->keys, seen->key_count, on_locked, seen));
    cr_expect_null(txn_begin_blind(seen->txns, seen->keys, seen->key_count, seen));
    cr_expect_eq(txns_active(seen->txns), 0u);
    end_filled(seen);
}

/* The content's shard hangs, not the key's: the votes would stay open for as long, and their number without bound. */
Test(txn, asks_nobody_when_one_participant_has_a_full_queue)
{
    struct seen *seen = begin(1);
    uint64_t request_id;
    grant(seen, 0);
    fill_queue(seen, 2);
    seen->ops[0] = (struct txn_op){0, {.kind = KV_OP_SET, .key = seen->keys[0]}};
    seen->ops[1] = (struct txn_op){2, {.kind = KV_OP_ADD, .count = 1}};
    cr_expect_not(txn_commit(seen->txn, seen->ops, 2, on_outcome));
    cr_expect_eq(txn_rig_take(&seen->rig, 0, &request_id), 0, "nobody was asked");
    cr_expect(txn_give_up(seen->txn), "surely not done");
    txn_rig_expect_done(&seen->rig, 0, KV_MSG_RELEASE);
    cr_expect_eq(txns_active(seen->txns), 0u);
    cr_expect_eq(seen->outcomes, 0u);
    end_filled(seen);
}

Test(txn, so_many_at_once_and_not_one_more)
{
    struct seen *seen = seen_new(1);
    for (unsigned i = 0; i < TXNS_ACTIVE_MAX; i++)
        cr_assert_not_null(txn_begin_blind(seen->txns, seen->keys, seen->key_count, seen));
    cr_expect_null(txn_begin_blind(seen->txns, seen->keys, seen->key_count, seen));
    struct kv_buf ids = {0};
    cr_expect_eq(txns_ids(seen->txns, 11, &ids), 11u);
    cr_expect_eq(ids.bytes, 10 * sizeof(uint64_t));
    for (uint64_t i = 0; i < 10; i++)
        cr_expect_eq(((uint64_t *)(void *)ids.data)[i], i + 1);
    kv_buf_free(&ids);
    end_filled(seen);
}
