/* Goal: operations in order become what each shard gets, and what each operation saw.
 * Method: plan.h alone; rows are made up, contents are named by a letter. */
#include <criterion/criterion.h>

#include "plan.h"

#define OPS_MAX 8u

struct batch {
    struct backend_content contents[26];
    struct backend_op ops[OPS_MAX];
    size_t count;
    struct txn_row rows[OPS_MAX];
    struct plan *plan;
};

static struct kv_hash hash_of(char content)
{
    struct kv_hash hash;
    memset(hash.bytes, content, sizeof hash.bytes);
    return hash;
}

static struct backend_op *add(struct batch *batch, enum backend_op_kind kind, const char *key)
{
    struct backend_op *op = &batch->ops[batch->count++];
    *op = (struct backend_op){.kind = kind, .key = kv_slice_text(key)};
    return op;
}

static struct backend_op *put(struct batch *batch, const char *key, char content)
{
    struct backend_op *op = add(batch, BACKEND_PUT, key);
    struct backend_content *given = &batch->contents[content - 'A'];
    *given = (struct backend_content){.hash = hash_of(content), .size = 10, .stored = kv_slice_text("0123456789")};
    op->content = given;
    return op;
}

/* `before`: a letter for each key of the plan in byte order: the content it holds, '-' for none. Row i has version 100 + i. */
static enum kv_err evaluate(struct batch *batch, const char *before, size_t *index)
{
    size_t count;
    plan_free(&batch->plan);
    batch->plan = plan_new(batch->ops, batch->count, 2);
    plan_keys(batch->plan, &count);
    cr_assert_eq(count, strlen(before));
    for (size_t i = 0; i < count; i++) {
        batch->rows[i] = (struct txn_row){.present = before[i] != '-'};
        batch->rows[i].row = (struct kv_row){.hash = hash_of(before[i]), .size = 10, .txn_id = 100 + i};
    }
    return plan_evaluate(batch->plan, batch->rows, 1234, index);
}

/* The one operation of this kind on this key or content, which must be there. */
static const struct kv_op *find(struct batch *batch, enum kv_op_kind kind, const char *key, char content)
{
    size_t count;
    const struct txn_op *ops = plan_ops(batch->plan, &count);
    struct kv_hash hash = hash_of(content);
    for (size_t i = 0; i < count; i++) {
        const struct kv_op *op = &ops[i].op;
        if (op->kind == kind &&
            (kv_op_is_on_key(op) ? kv_slice_equal(op->key, kv_slice_text(key)) : kv_hash_equal(&op->hash, &hash)))
            return op;
    }
    cr_assert_fail("no operation %d on %s%c", (int)kind, key != NULL ? key : "", content);
    return NULL;
}

static size_t op_count(struct batch *batch)
{
    size_t count;
    plan_ops(batch->plan, &count);
    return count;
}

Test(plan, an_overwrite_adds_and_drops)
{
    struct batch batch = {0};
    size_t index;
    put(&batch, "k", 'B');
    cr_assert_eq(evaluate(&batch, "A", &index), KV_OK);
    cr_expect(plan_writes(batch.plan));
    const struct kv_op *set = find(&batch, KV_OP_SET, "k", 0);
    cr_expect_eq(set->expect_txn, 100u);
    cr_expect_eq(set->row.created_s, 1234u);
    cr_expect_eq(find(&batch, KV_OP_ADD, NULL, 'B')->count, 1u);
    cr_expect_eq(find(&batch, KV_OP_DROP, NULL, 'A')->count, 1u);
    cr_expect_eq(op_count(&batch), 3u);
    plan_free(&batch.plan);
}

Test(plan, the_same_content_again_touches_no_reference)
{
    struct batch batch = {0};
    size_t index;
    put(&batch, "k", 'A');
    cr_assert_eq(evaluate(&batch, "A", &index), KV_OK);
    find(&batch, KV_OP_SET, "k", 0);
    cr_expect_eq(op_count(&batch), 1u);
    cr_expect(plan_results(batch.plan, 9, NULL)[0].existed);
    plan_free(&batch.plan);
}

Test(plan, a_put_alone_of_a_new_content_knows_what_every_read_will_find)
{
    struct batch batch = {0};
    size_t index, count;
    put(&batch, "k", 'A');
    cr_assert_eq(evaluate(&batch, "B", &index), KV_OK);
    plan_ops(batch.plan, &count);
    struct txn_effect effects[OPS_MAX] = {{false, 5}, {false, 6}, {false, 7}};
    const struct backend_op_result *result = plan_results(batch.plan, 9, effects);
    cr_expect_eq(result->row.txn_id, 9);
    cr_expect_eq(result->refs, 1);
    cr_expect_eq(result->proof.key_word, 5);
    cr_expect_eq(result->proof.content_word, 6);
    plan_free(&batch.plan);
}

Test(plan, of_a_content_that_was_there_a_put_knows_no_count)
{
    struct batch batch = {0};
    size_t index, count;
    put(&batch, "k", 'A');
    cr_assert_eq(evaluate(&batch, "-", &index), KV_OK);
    plan_ops(batch.plan, &count);
    struct txn_effect effects[OPS_MAX] = {{false, 5}, {true, 6}};
    cr_expect_eq(plan_results(batch.plan, 9, effects)->proof.content_word, 0);
    plan_free(&batch.plan);
}

Test(plan, references_are_counted_by_keys)
{
    struct batch batch = {0};
    size_t index;
    put(&batch, "a", 'B'); /* A moves from a to b, and c comes along */
    put(&batch, "b", 'A');
    put(&batch, "c", 'B');
    cr_assert_eq(evaluate(&batch, "A--", &index), KV_OK);
    cr_expect_eq(find(&batch, KV_OP_ADD, NULL, 'B')->count, 2u);
    cr_expect_eq(op_count(&batch), 4u, "A is where it was: as often as before");
    plan_free(&batch.plan);
}

Test(plan, later_operations_see_earlier_ones)
{
    struct batch batch = {0};
    size_t index;
    add(&batch, BACKEND_HEAD, "k");
    put(&batch, "k", 'A');
    add(&batch, BACKEND_HEAD, "k");
    add(&batch, BACKEND_DELETE, "k");
    add(&batch, BACKEND_GET, "k");
    cr_assert_eq(evaluate(&batch, "-", &index), KV_OK);
    cr_expect_not(plan_writes(batch.plan), "nothing is left of it");
    const struct backend_op_result *results = plan_results(batch.plan, 9, NULL);
    bool expected[] = {false, false, true, true, false};
    for (size_t i = 0; i < batch.count; i++)
        cr_expect_eq(results[i].found, expected[i], "operation %zu", i);
    cr_expect_eq(results[2].refs, 1u, "its own");
    plan_free(&batch.plan);
}

Test(plan, conditions_are_judged_in_order)
{
    struct batch batch = {0};
    size_t index = 99;
    put(&batch, "k", 'B')->match = BACKEND_MATCH_HASH;
    batch.ops[0].match_hash = hash_of('A');
    put(&batch, "k", 'C')->match = BACKEND_MATCH_HASH;
    batch.ops[1].match_hash = hash_of('B');
    put(&batch, "l", 'C')->match = BACKEND_MATCH_ABSENT;
    add(&batch, BACKEND_DELETE, "l")->match = BACKEND_MATCH_ANY;
    cr_expect_eq(evaluate(&batch, "A-", &index), KV_OK);
    cr_expect_eq(evaluate(&batch, "B-", &index), KV_PRECONDITION);
    cr_expect_eq(index, 0u);
    cr_expect_eq(evaluate(&batch, "AA", &index), KV_PRECONDITION);
    cr_expect_eq(index, 2u);
    cr_expect_eq(evaluate(&batch, "--", &index), KV_PRECONDITION);
    cr_expect_eq(index, 0u);
    plan_free(&batch.plan);
}

Test(plan, a_key_that_is_only_read_is_checked)
{
    struct batch batch = {0};
    size_t index, count;
    put(&batch, "a", 'B');
    add(&batch, BACKEND_GET, "b");
    add(&batch, BACKEND_DELETE, "c");
    cr_assert_eq(evaluate(&batch, "-A-", &index), KV_OK);
    cr_expect_eq(find(&batch, KV_OP_CHECK, "b", 0)->expect_txn, 101u);
    cr_expect_eq(find(&batch, KV_OP_CHECK, "c", 0)->expect_txn, 0u, "it must still be absent");
    cr_expect_eq(plan_get_bytes(batch.plan), 10u);
    bool wanted = false;
    struct plan_content *contents = plan_contents(batch.plan, &count);
    for (size_t i = 0; i < count; i++)
        wanted = wanted || (contents[i].want_bytes && contents[i].hash.bytes[0] == 'A');
    cr_expect(wanted);
    plan_free(&batch.plan);
}

Test(plan, a_staged_content_is_named_by_its_id_again_and_again)
{
    struct batch batch = {0};
    size_t index, count;
    put(&batch, "k", 'B');
    batch.contents['B' - 'A'].stored = kv_slice(NULL, KV_INLINE_BYTES_MAX + 1);
    cr_assert_eq(evaluate(&batch, "A", &index), KV_OK);
    struct plan_content *contents = plan_contents(batch.plan, &count);
    for (size_t i = 0; i < count; i++)
        contents[i].object_id = contents[i].given != NULL ? 77 : 0;
    cr_assert_eq(plan_evaluate(batch.plan, batch.rows, 1235, &index), KV_OK); /* begun anew */
    const struct kv_op *op = find(&batch, KV_OP_ADD, NULL, 'B');
    cr_expect_eq(op->object_id, 77u);
    cr_expect_not(op->has_bytes);
    plan_free(&batch.plan);
}

Test(plan, deduplication_is_told_per_operation)
{
    struct batch batch = {0};
    size_t index, count;
    put(&batch, "a", 'A');
    put(&batch, "b", 'A');
    put(&batch, "c", 'B');
    cr_assert_eq(evaluate(&batch, "---", &index), KV_OK);
    plan_ops(batch.plan, &count);
    struct txn_effect effects[OPS_MAX] = {{false, 5}};
    const struct backend_op_result *results = plan_results(batch.plan, 9, effects);
    cr_expect_not(results[0].existed);
    cr_expect(results[1].existed, "the batch itself has brought it");
    cr_expect_not(results[2].existed);
    plan_free(&batch.plan);
}
