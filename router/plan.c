/* router/plan.c -- see plan.h. */
#include "plan.h"

#include <stdlib.h>

#include "kv/log.h"
#include "kv/placement.h"

#define NOTHING SIZE_MAX

struct plan_key {
    struct txn_row before;
    struct txn_row after;
    bool put; /* written, even if with the same content */
};

struct step {
    size_t key;          /* index into keys */
    size_t content;      /* what a GET or HEAD saw, or a PUT brought; NOTHING */
    int64_t delta_at;    /* GET, HEAD: references gained until then */
    bool first_of_batch; /* PUT: no earlier operation brought this content */
};

struct plan {
    const struct backend_op *ops;
    size_t count;
    unsigned shard_count;
    struct kv_slice *keys;
    struct plan_key *state;
    size_t key_count;
    struct plan_content *contents; /* ascending by hash: first the given ones, see find_content */
    size_t content_count, content_given, content_capacity;
    struct step *steps;
    struct backend_op_result *results;
    struct txn_op *txn_ops;
    size_t txn_op_count;
};

/* ---- keys and contents ---------------------------------------------------------------------------------------- */

static int compare_keys(const void *a, const void *b)
{
    return kv_slice_compare(*(const struct kv_slice *)a, *(const struct kv_slice *)b);
}

static void collect_keys(struct plan *plan)
{
    plan->keys = kv_alloc(plan->count * sizeof *plan->keys);
    for (size_t i = 0; i < plan->count; i++)
        plan->keys[i] = plan->ops[i].key;
    qsort(plan->keys, plan->count, sizeof *plan->keys, compare_keys);
    for (size_t i = 0; i < plan->count; i++) {
        if (plan->key_count == 0 || !kv_slice_equal(plan->keys[plan->key_count - 1], plan->keys[i]))
            plan->keys[plan->key_count++] = plan->keys[i];
    }
    plan->state = kv_alloc_zero(plan->key_count, sizeof *plan->state);
}

static size_t find_key(const struct plan *plan, struct kv_slice key)
{
    const struct kv_slice *found = bsearch(&key, plan->keys, plan->key_count, sizeof key, compare_keys);
    return (size_t)(found - plan->keys);
}

static int compare_contents(const void *a, const void *b)
{
    const struct plan_content *left = a, *right = b;
    return memcmp(left->hash.bytes, right->hash.bytes, KV_HASH_BYTES);
}

/* The contents that PUTs bring, sorted; those met in rows are found or added by get_content. */
static void collect_contents(struct plan *plan)
{
    plan->content_capacity = plan->count + 2 * plan->key_count;
    plan->contents = kv_alloc_zero(plan->content_capacity, sizeof *plan->contents);
    size_t given = 0;
    for (size_t i = 0; i < plan->count; i++) {
        if (plan->ops[i].kind != BACKEND_PUT)
            continue;
        const struct backend_content *content = plan->ops[i].content;
        plan->contents[given++] = (struct plan_content){.hash = content->hash, .given = content, .size = content->size};
    }
    qsort(plan->contents, given, sizeof *plan->contents, compare_contents);
    for (size_t i = 0; i < given; i++) {
        if (plan->content_given == 0 ||
            compare_contents(&plan->contents[plan->content_given - 1], &plan->contents[i]) != 0)
            plan->contents[plan->content_given++] = plan->contents[i];
    }
    plan->content_count = plan->content_given;
}

/* Contents of the locked rows join the sorted table before the operations run. */
static void collect_row_contents(struct plan *plan)
{
    size_t met = plan->content_given;
    for (size_t i = 0; i < plan->key_count; i++) {
        if (plan->state[i].before.present)
            plan->contents[met++] =
                (struct plan_content){.hash = plan->state[i].before.row.hash, .size = plan->state[i].before.row.size};
    }
    qsort(plan->contents, met, sizeof *plan->contents, compare_contents);
    plan->content_count = 0;
    for (size_t i = 0; i < met; i++) {
        struct plan_content *last = plan->content_count == 0 ? NULL : &plan->contents[plan->content_count - 1];
        if (last == NULL || compare_contents(last, &plan->contents[i]) != 0)
            plan->contents[plan->content_count++] = plan->contents[i];
        else if (last->given == NULL)
            *last = plan->contents[i];
    }
    for (size_t i = 0; i < plan->content_count; i++)
        plan->contents[i].add_index = NOTHING;
}

static size_t find_content(const struct plan *plan, const struct kv_hash *hash)
{
    struct plan_content wanted = {.hash = *hash};
    const struct plan_content *found =
        bsearch(&wanted, plan->contents, plan->content_count, sizeof wanted, compare_contents);
    kv_assert(found != NULL);
    return (size_t)(found - plan->contents);
}

struct plan *plan_new(const struct backend_op *ops, size_t count, unsigned shard_count)
{
    struct plan *plan = kv_alloc_zero(1, sizeof *plan);
    plan->ops = ops;
    plan->count = count;
    plan->shard_count = shard_count;
    plan->steps = kv_alloc_zero(count, sizeof *plan->steps);
    plan->results = kv_alloc_zero(count, sizeof *plan->results);
    collect_keys(plan);
    collect_contents(plan);
    return plan;
}

void plan_free(struct plan **plan)
{
    if (*plan == NULL)
        return;
    for (size_t i = 0; i < (*plan)->content_count; i++)
        kv_buf_free(&(*plan)->contents[i].content);
    free((*plan)->keys);
    free((*plan)->state);
    free((*plan)->contents);
    free((*plan)->steps);
    free((*plan)->results);
    free((*plan)->txn_ops);
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
    *count = plan->content_count;
    return plan->contents;
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

static void change_row(struct plan *plan, struct txn_row *row, const struct txn_row *to)
{
    if (row->present)
        plan->contents[find_content(plan, &row->row.hash)].delta--;
    if (to->present)
        plan->contents[find_content(plan, &to->row.hash)].delta++;
    *row = *to;
}

static void put(struct plan *plan, const struct backend_op *op, struct step *step, uint64_t now_s)
{
    struct plan_key *key = &plan->state[step->key];
    struct txn_row row = {
        true,
        {.hash = op->content->hash, .size = op->content->size, .created_s = now_s, .content_type = op->content_type}};
    step->content = find_content(plan, &op->content->hash);
    step->first_of_batch = !plan->contents[step->content].put_before;
    plan->contents[step->content].put_before = true;
    change_row(plan, &key->after, &row);
    key->put = true;
}

static void look(struct plan *plan, const struct backend_op *op, struct step *step)
{
    const struct txn_row *row = &plan->state[step->key].after;
    if (!row->present)
        return;
    step->content = find_content(plan, &row->row.hash);
    struct plan_content *content = &plan->contents[step->content];
    content->want_refs = true;
    content->want_bytes = content->want_bytes || op->kind == BACKEND_GET;
    step->delta_at = content->delta;
}

static void start_over(struct plan *plan, const struct txn_row *rows)
{
    for (size_t i = 0; i < plan->content_count; i++)
        kv_buf_free(&plan->contents[i].content);
    for (size_t i = 0, kept = 0; i < plan->content_count; i++) { /* keep the given ones and where they are staged */
        struct plan_content content = plan->contents[i];
        if (content.given != NULL)
            plan->contents[kept++] = (struct plan_content){.hash = content.hash,
                                                           .given = content.given,
                                                           .object_id = content.object_id,
                                                           .link_generation = content.link_generation,
                                                           .size = content.size};
    }
    for (size_t i = 0; i < plan->key_count; i++)
        plan->state[i] = (struct plan_key){.before = rows[i], .after = rows[i]};
    collect_row_contents(plan);
}

enum kv_err plan_evaluate(struct plan *plan, const struct txn_row *rows, uint64_t now_s, size_t *index)
{
    start_over(plan, rows);
    for (size_t i = 0; i < plan->count; i++) {
        const struct backend_op *op = &plan->ops[i];
        struct step *step = &plan->steps[i];
        *step = (struct step){.key = find_key(plan, op->key), .content = NOTHING};
        struct plan_key *key = &plan->state[step->key];
        if (!matches(op, &key->after)) {
            *index = i;
            return KV_PRECONDITION;
        }
        plan->results[i] = (struct backend_op_result){.found = key->after.present, .row = key->after.row};
        if (op->kind == BACKEND_PUT)
            put(plan, op, step, now_s);
        else if (op->kind == BACKEND_DELETE)
            change_row(plan, &key->after, &(struct txn_row){0});
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
    free(plan->txn_ops);
    plan->txn_ops = kv_alloc((plan->key_count + plan->content_count) * sizeof *plan->txn_ops);
    plan->txn_op_count = 0;
    for (size_t i = 0; i < plan->key_count; i++)
        plan->txn_ops[plan->txn_op_count++] =
            (struct txn_op){kv_shard_of(plan->keys[i], plan->shard_count), key_op(plan, i)};
    for (size_t i = 0; i < plan->content_count; i++) {
        struct plan_content *content = &plan->contents[i];
        content->add_index = content->delta > 0 ? plan->txn_op_count : NOTHING;
        if (content->delta != 0)
            plan->txn_ops[plan->txn_op_count++] =
                (struct txn_op){kv_shard_of(kv_hash_slice(&content->hash), plan->shard_count), content_op(content)};
    }
    *count = plan->txn_op_count;
    return plan->txn_ops;
}

/* ---- results -------------------------------------------------------------------------------------------------- */

const struct backend_op_result *plan_results(struct plan *plan, const bool *existed)
{
    for (size_t i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        struct backend_op_result *result = &plan->results[i];
        if (step->content == NOTHING)
            continue;
        const struct plan_content *content = &plan->contents[step->content];
        if (plan->ops[i].kind == BACKEND_PUT) {
            /* without an ADD some key of the batch held it before */
            result->existed = !step->first_of_batch || content->add_index == NOTHING || existed[content->add_index];
            continue;
        }
        result->refs = (uint64_t)((int64_t)content->refs + step->delta_at);
        result->content = kv_buf_peek(&content->content);
    }
    return plan->results;
}
