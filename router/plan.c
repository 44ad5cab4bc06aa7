/* router/plan.c -- see plan.h. A batch is small change per operation: keys are sorted by eight bytes behind what they all share,
 * contents are found through a table of their hashes (plan_table.h), and each is looked up once. */
#include "plan.h"

#include <stdlib.h>

#include "kv/log.h"
#include "kv/placement.h"
#include "plan_table.h"

/* An operation on its way to its place in the order of keys. */
struct sorting {
    uint64_t prefix;
    const struct backend_op *op;
};

struct plan_key {
    struct txn_row before;
    struct txn_row after;
    size_t content; /* index of what `after` holds, if it is present */
    bool put;       /* written, even if with the same content */
};

struct step {
    size_t key;          /* index into keys */
    size_t brings;       /* PUT: index into contents */
    size_t content;      /* what a GET or HEAD saw, or a PUT brought; PLAN_NOTHING */
    int64_t delta_at;    /* GET, HEAD: references gained until then */
    bool first_of_batch; /* PUT: no earlier operation brought this content */
};

/* One block of memory with all its arrays: most plans are of one operation. */
struct plan {
    const struct backend_op *ops;
    size_t count;
    unsigned shard_count;
    struct sorting *sorting; /* of operations by keys */
    struct kv_slice *keys;
    struct plan_key *state;
    size_t key_count;
    struct plan_table contents;
    struct step *steps;
    struct backend_op_result *results;
    struct txn_op *txn_ops;
    size_t txn_op_count;
    max_align_t arrays[];
};

/* As many elements from the block's rest, unset; with a block of NULL only their bytes are counted. */
static void *carve(uint8_t *block, size_t *used, size_t count, size_t element_bytes)
{
    size_t at = *used;
    *used += (count * element_bytes + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    return block == NULL ? NULL : block + at;
}

/* Every operation may have a key, a content and an old content of its own. Returns the bytes of all. */
static size_t carve_arrays(struct plan *plan, uint8_t *block)
{
    size_t used = 0, count = plan->count;
    plan->sorting = carve(block, &used, count, sizeof *plan->sorting);
    plan->keys = carve(block, &used, count, sizeof *plan->keys);
    plan->state = carve(block, &used, count, sizeof *plan->state);
    plan->contents.list = carve(block, &used, 2 * count, sizeof *plan->contents.list);
    plan->contents.slots = carve(block, &used, plan->contents.slot_count, sizeof *plan->contents.slots);
    plan->steps = carve(block, &used, count, sizeof *plan->steps);
    plan->results = carve(block, &used, count, sizeof *plan->results);
    plan->txn_ops = carve(block, &used, 3 * count, sizeof *plan->txn_ops);
    return used;
}

/* ---- keys and contents ---------------------------------------------------------------------------------------- */

static int compare_sorting(const void *a, const void *b)
{
    const struct sorting *left = a, *right = b;
    if (left->prefix != right->prefix)
        return left->prefix < right->prefix ? -1 : 1;
    return kv_slice_compare(left->op->key, right->op->key);
}

static size_t shared_bytes(const struct backend_op *ops, size_t count)
{
    size_t shared = ops[0].key.bytes;
    for (size_t i = 1; i < count; i++) {
        size_t at = 0;
        while (at < shared && at < ops[i].key.bytes && ops[i].key.data[at] == ops[0].key.data[at])
            at++;
        shared = at;
    }
    return shared;
}

/* Eight bytes from `from` on, zeros behind the end: ordered like the keys, but for ties. */
static uint64_t prefix_of(struct kv_slice key, size_t from)
{
    uint8_t bytes[sizeof(uint64_t)] = {0};
    size_t left = key.bytes - from;
    memcpy(bytes, key.data + from, left < sizeof bytes ? left : sizeof bytes);
    uint64_t prefix;
    memcpy(&prefix, bytes, sizeof prefix);
    return __builtin_bswap64(prefix);
}

static void collect_keys(struct plan *plan)
{
    struct sorting *sorting = plan->sorting;
    size_t shared = shared_bytes(plan->ops, plan->count);
    for (size_t i = 0; i < plan->count; i++)
        sorting[i] = (struct sorting){prefix_of(plan->ops[i].key, shared), &plan->ops[i]};
    if (plan->count > 1)
        qsort(sorting, plan->count, sizeof *sorting, compare_sorting);
    for (size_t i = 0; i < plan->count; i++) {
        if (i == 0 || compare_sorting(&sorting[i - 1], &sorting[i]) != 0)
            plan->keys[plan->key_count++] = sorting[i].op->key;
        plan->steps[sorting[i].op - plan->ops].key = plan->key_count - 1;
    }
}

/* The contents that PUTs bring; those met in rows come behind them when the plan is evaluated. */
static void collect_contents(struct plan *plan)
{
    plan_table_clear(&plan->contents);
    for (size_t i = 0; i < plan->count; i++) {
        const struct backend_content *content = plan->ops[i].content;
        if (plan->ops[i].kind != BACKEND_PUT)
            continue;
        plan->steps[i].brings = plan_table_get(&plan->contents, &content->hash, content->size);
        plan->contents.list[plan->steps[i].brings].given = content;
    }
    plan->contents.given = plan->contents.count;
}

/* Contents of the locked rows. */
static void collect_row_contents(struct plan *plan)
{
    for (size_t i = 0; i < plan->key_count; i++) {
        const struct txn_row *before = &plan->state[i].before;
        if (before->present)
            plan->state[i].content = plan_table_get(&plan->contents, &before->row.hash, before->row.size);
    }
}

struct plan *plan_new(const struct backend_op *ops, size_t count, unsigned shard_count)
{
    struct plan sizes = {.ops = ops, .count = count, .shard_count = shard_count};
    sizes.contents.slot_count = plan_table_slots(2 * count); /* contents and old contents */
    struct plan *plan = kv_alloc(sizeof *plan + carve_arrays(&sizes, NULL));
    *plan = sizes;
    carve_arrays(plan, (uint8_t *)plan->arrays);
    memset(plan->steps, 0, count * sizeof *plan->steps);
    collect_keys(plan);
    collect_contents(plan);
    return plan;
}

void plan_free(struct plan **plan)
{
    if (*plan == NULL)
        return;
    for (size_t i = 0; i < (*plan)->contents.count; i++)
        kv_buf_free(&(*plan)->contents.list[i].content);
    free(*plan);
    *plan = NULL;
}

const struct kv_slice *plan_keys(const struct plan *plan, size_t *count)
{
    *count = plan->key_count;
    return plan->keys;
}

struct plan_content *plan_contents(struct plan *plan, size_t *count)
{
    *count = plan->contents.count;
    return plan->contents.list;
}

/* ---- evaluating ----------------------------------------------------------------------------------------------- */

static bool matches(const struct backend_op *op, const struct txn_row *row)
{
    switch (op->match) {
    case BACKEND_MATCH_NONE:
        return true;
    case BACKEND_MATCH_ANY:
        return row->present;
    case BACKEND_MATCH_HASH:
        return row->present && kv_hash_equal(&row->row.hash, &op->match_hash);
    case BACKEND_MATCH_ABSENT:
        return !row->present;
    }
    return false;
}

/* `content`: index of what the new row holds, PLAN_NOTHING for no row. */
static void change_row(struct plan *plan, struct plan_key *key, size_t content)
{
    if (key->after.present)
        plan->contents.list[key->content].delta--;
    if (content != PLAN_NOTHING)
        plan->contents.list[content].delta++;
    key->content = content;
    key->after = (struct txn_row){.present = content != PLAN_NOTHING};
}

static void put(struct plan *plan, const struct backend_op *op, struct step *step, uint64_t now_s)
{
    struct plan_key *key = &plan->state[step->key];
    struct plan_content *content = &plan->contents.list[step->brings];
    step->content = step->brings;
    step->first_of_batch = !content->put_before;
    content->put_before = true;
    change_row(plan, key, step->brings);
    key->after.row = (struct kv_row){
        .hash = content->hash, .size = content->size, .created_s = now_s, .content_type = op->content_type};
    key->put = true;
}

static void look(struct plan *plan, const struct backend_op *op, struct step *step)
{
    const struct plan_key *key = &plan->state[step->key];
    if (!key->after.present)
        return;
    step->content = key->content;
    struct plan_content *content = &plan->contents.list[step->content];
    content->want_refs = true;
    content->want_bytes = content->want_bytes || op->kind == BACKEND_GET;
    step->delta_at = content->delta;
}

static void start_over(struct plan *plan, const struct txn_row *rows)
{
    plan_table_start_over(&plan->contents);
    for (size_t i = 0; i < plan->key_count; i++)
        plan->state[i] = rows == NULL ? (struct plan_key){0} : (struct plan_key){.before = rows[i], .after = rows[i]};
    collect_row_contents(plan);
}

enum kv_err plan_evaluate(struct plan *plan, const struct txn_row *rows, uint64_t now_s, size_t *index)
{
    start_over(plan, rows);
    for (size_t i = 0; i < plan->count; i++) {
        const struct backend_op *op = &plan->ops[i];
        struct step *step = &plan->steps[i];
        *step = (struct step){.key = step->key, .brings = step->brings, .content = PLAN_NOTHING};
        struct plan_key *key = &plan->state[step->key];
        if (!matches(op, &key->after)) {
            *index = i;
            return KV_PRECONDITION;
        }
        plan->results[i] = (struct backend_op_result){.found = key->after.present, .row = key->after.row};
        if (op->kind == BACKEND_PUT)
            put(plan, op, step, now_s);
        else if (op->kind == BACKEND_DELETE)
            change_row(plan, key, PLAN_NOTHING);
        else
            look(plan, op, step);
        if (op->kind == BACKEND_PUT)
            plan->results[i].row = key->after.row;
    }
    return KV_OK;
}

static bool key_changes(const struct plan_key *key)
{
    return key->after.present ? key->put : key->before.present;
}

uint64_t plan_get_bytes(const struct plan *plan)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < plan->count; i++)
        bytes += plan->ops[i].kind == BACKEND_GET && plan->results[i].found ? plan->results[i].row.size : 0;
    return bytes;
}

bool plan_writes(const struct plan *plan)
{
    for (size_t i = 0; i < plan->key_count; i++) {
        if (key_changes(&plan->state[i]))
            return true;
    }
    return false;
}

/* ---- the shards' operations ----------------------------------------------------------------------------------- */

static struct kv_op key_op(const struct plan *plan, size_t index)
{
    const struct plan_key *key = &plan->state[index];
    struct kv_op op = {
        .kind = KV_OP_CHECK,
        .key = plan->keys[index],
        .expect_txn = key->before.present ? key->before.row.txn_id : 0,
    };
    if (!key_changes(key))
        return op;
    op.kind = key->after.present ? KV_OP_SET : KV_OP_CLEAR;
    op.row = key->after.row;
    return op;
}

/* A content that a key gains without a PUT of the batch cannot be: rows change only by PUT and DELETE. */
static struct kv_op content_op(const struct plan_content *content)
{
    struct kv_op op = {.kind = KV_OP_DROP, .hash = content->hash, .count = (uint64_t)-content->delta};
    if (content->delta < 0)
        return op;
    kv_assert(content->given != NULL);
    op.kind = KV_OP_ADD;
    op.count = (uint64_t)content->delta;
    op.size = content->given->size;
    op.codec = content->given->codec;
    op.stored_bytes = content->given->stored.bytes;
    op.has_bytes = op.stored_bytes <= KV_INLINE_BYTES_MAX;
    op.bytes = op.has_bytes ? content->given->stored : kv_slice(NULL, 0);
    op.object_id = content->object_id;
    return op;
}

const struct txn_op *plan_ops(struct plan *plan, size_t *count)
{
    plan->txn_op_count = 0;
    for (size_t i = 0; i < plan->key_count; i++)
        plan->txn_ops[plan->txn_op_count++] =
            (struct txn_op){kv_shard_of(plan->keys[i], plan->shard_count), key_op(plan, i)};
    for (size_t i = 0; i < plan->contents.count; i++) {
        struct plan_content *content = &plan->contents.list[i];
        content->add_index = content->delta > 0 ? plan->txn_op_count : PLAN_NOTHING;
        if (content->delta != 0)
            plan->txn_ops[plan->txn_op_count++] =
                (struct txn_op){kv_shard_of(kv_hash_slice(&content->hash), plan->shard_count), content_op(content)};
    }
    *count = plan->txn_op_count;
    return plan->txn_ops;
}

/* ---- results -------------------------------------------------------------------------------------------------- */

static void put_result(struct plan *plan, const struct plan_content *content, const struct txn_effect *effects,
                       struct backend_op_result *result)
{
    const struct txn_effect *add = content->add_index == PLAN_NOTHING ? NULL : &effects[content->add_index];
    result->existed = add == NULL || add->existed; /* without an ADD some key of the batch held it before */
    if (plan->count > 1 || result->existed)
        return;
    result->refs = 1;
    result->proof = (struct marks_proof){effects[0].word, add->word};
}

const struct backend_op_result *plan_results(struct plan *plan, uint64_t txn_id, const struct txn_effect *effects)
{
    for (size_t i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        struct backend_op_result *result = &plan->results[i];
        if (step->content == PLAN_NOTHING)
            continue;
        const struct plan_content *content = &plan->contents.list[step->content];
        if (plan->ops[i].kind == BACKEND_PUT) {
            result->row.txn_id = txn_id;
            put_result(plan, content, effects, result);
            result->existed = result->existed || !step->first_of_batch;
            continue;
        }
        result->refs = (uint64_t)((int64_t)content->refs + step->delta_at);
        result->content = kv_buf_peek(&content->content);
    }
    return plan->results;
}
