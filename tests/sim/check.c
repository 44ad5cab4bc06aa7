/* tests/sim/check.c -- see check.h. This file: history against journals. Tables are in check_disk.c. */
#include "check.h"

#include <stdlib.h>

#include "client.h"
#include "kv/log.h"
#include "router.h"
#include "shard.h"
#include "wire/messages.h"

#define NOBODY SIZE_MAX

/* A transaction as the journals have it. */
struct commit {
    uint64_t txn_id;
    uint64_t stamp; /* of its last vote */
    kv_shard_set participants, prepared, committed, aborted;
    size_t op;
};

struct evidence {
    struct sim *sim;
    struct commit *commits;
    size_t count, capacity;
    struct model *states; /* states[i]: before commits[i]; one more than there are commits */
};

/* ---- from the journals ---------------------------------------------------------------------------------------- */

static struct commit *get_commit(struct evidence *evidence, uint64_t txn_id)
{
    for (size_t i = evidence->count; i-- > 0;) {
        if (evidence->commits[i].txn_id == txn_id)
            return &evidence->commits[i];
    }
    if (evidence->count == evidence->capacity) {
        evidence->capacity = evidence->capacity * 2 + 256;
        evidence->commits = kv_realloc(evidence->commits, evidence->capacity * sizeof *evidence->commits);
    }
    struct commit *commit = &evidence->commits[evidence->count++];
    *commit = (struct commit){.txn_id = txn_id, .op = NOBODY};
    const struct history *history = &evidence->sim->history;
    for (size_t i = 0; i < history->begun_count; i++) {
        if (history->begun[i].txn_id == txn_id)
            commit->op = history->begun[i].op;
    }
    if (commit->op == NOBODY)
        sim_fail("nobody began transaction %llx", (unsigned long long)txn_id);
    return commit;
}

/* Rows say which PUT wrote them: it must be one of this operation's. */
static void check_rows(const struct commit *commit, const struct kv_ops *ops)
{
    for (const struct kv_op *op = ops->at; op < ops->at + ops->count; op++) {
        if (op->kind != KV_OP_SET)
            continue;
        char text[16] = {0};
        memcpy(text, op->row.content_type.data, op->row.content_type.bytes);
        size_t tag = strtoul(text, NULL, 10);
        if ((tag - 1) / SIM_BATCH_MAX != commit->op)
            sim_fail("transaction %llx wrote a row of another operation", (unsigned long long)commit->txn_id);
    }
}

static void take_record(struct evidence *evidence, unsigned shard, uint64_t position)
{
    const struct disk *disk = &evidence->sim->shards[shard]->disk;
    const struct disk_record *record = &disk->records[position - 1];
    struct kv_slice body = disk_body(disk, position);
    if (record->type == CORE_RECORD_PREPARE || record->type == CORE_RECORD_APPLY) {
        struct kv_msg_prepare prepare = {0};
        kv_get_prepare(body, &prepare);
        struct commit *commit = get_commit(evidence, prepare.txn_id);
        commit->participants |= prepare.participants;
        commit->prepared |= kv_shard_bit(shard);
        if (record->type == CORE_RECORD_APPLY)
            commit->committed |= kv_shard_bit(shard);
        if (record->stamp > commit->stamp)
            commit->stamp = record->stamp;
        check_rows(commit, &prepare.ops);
        kv_ops_free(&prepare.ops);
    } else if (record->type != CORE_RECORD_FORGET) {
        uint64_t txn_id;
        kv_get_id(body, &txn_id);
        struct commit *commit = get_commit(evidence, txn_id);
        *(record->type == CORE_RECORD_COMMIT ? &commit->committed : &commit->aborted) |= kv_shard_bit(shard);
    }
}

static int compare_commits(const void *a, const void *b)
{
    const struct commit *left = a, *right = b;
    return (left->stamp > right->stamp) - (left->stamp < right->stamp);
}

/* Leaves only what was committed, in order. */
static void keep_committed(struct evidence *evidence)
{
    size_t kept = 0;
    for (size_t i = 0; i < evidence->count; i++) {
        const struct commit *commit = &evidence->commits[i];
        if (commit->committed == 0)
            continue;
        if (commit->committed != commit->participants || commit->aborted != 0)
            sim_fail("transaction %llx of op %zu is there in part: participants %llx, committed %llx, aborted %llx",
                     (unsigned long long)commit->txn_id, commit->op, (unsigned long long)commit->participants,
                     (unsigned long long)commit->committed, (unsigned long long)commit->aborted);
        evidence->commits[kept++] = *commit;
    }
    evidence->count = kept;
    if (kept > 0)
        qsort(evidence->commits, kept, sizeof *evidence->commits, compare_commits);
}

/* ---- against what clients were told ---------------------------------------------------------------------------- */

/* Whether what the model saw is what the client was told. */
static bool agrees(const struct op *op, const struct seen *seen)
{
    for (size_t i = 0; i < op->count; i++) {
        bool has_row = op->specs[i].kind != BACKEND_DELETE && (op->specs[i].kind == BACKEND_PUT || seen[i].found);
        if (op->seen[i].found != seen[i].found)
            return false;
        if (has_row && (op->seen[i].tag != seen[i].tag || op->seen[i].content != seen[i].content))
            return false;
    }
    return true;
}

static bool is_refused(const struct op *op)
{
    return op->outcome == OP_ANSWERED && op->err != KV_OK && op->err != KV_UNCERTAIN;
}

static void check_commit(struct evidence *evidence, size_t index, struct model *model)
{
    const struct commit *commit = &evidence->commits[index];
    const struct op *op = &evidence->sim->history.ops[commit->op];
    struct seen seen[SIM_BATCH_MAX];
    bool writes;
    for (size_t i = 0; i < index; i++) {
        if (evidence->commits[i].op == commit->op)
            sim_fail("op %zu was done twice", commit->op);
    }
    if (model_run(model, op, commit->op, seen, &writes) >= 0)
        sim_fail("op %zu was done though its condition did not hold", commit->op);
    if (is_refused(op))
        sim_fail("op %zu was refused with `%s`, but is there", commit->op, kv_err_text(op->err));
    bool acknowledged = op->outcome == OP_ANSWERED && op->err == KV_OK;
    if (commit->stamp < op->invoked || (acknowledged && commit->stamp > op->answered))
        sim_fail("op %zu did not happen between question and answer", commit->op);
    if (acknowledged && !op->early && !agrees(op, seen))
        sim_fail("op %zu was told something else than what was", commit->op);
}

static bool is_committed(const struct evidence *evidence, size_t op)
{
    for (size_t i = 0; i < evidence->count; i++) {
        if (evidence->commits[i].op == op)
            return true;
    }
    return false;
}

/* The states that the store was in between question and answer. */
static void moments(const struct evidence *evidence, const struct op *op, size_t *first, size_t *last)
{
    *first = 0;
    while (*first < evidence->count && evidence->commits[*first].stamp < op->invoked)
        ++*first;
    *last = *first;
    while (*last < evidence->count && evidence->commits[*last].stamp < op->answered)
        ++*last;
}

static bool fits_transaction(const struct op *op, size_t index, const struct model *state)
{
    struct model model = *state;
    struct seen seen[SIM_BATCH_MAX];
    bool writes;
    int refused = model_run(&model, op, index, seen, &writes);
    if (op->err == KV_PRECONDITION)
        return refused == (int)op->index;
    return refused < 0 && !writes && agrees(op, seen);
}

static uint64_t refs_of(const struct model *model, unsigned content)
{
    uint64_t refs = 0;
    for (unsigned key = 0; key < SIM_KEYS_MAX; key++)
        refs += model->rows[key].tag != 0 && model->rows[key].content == content;
    return refs;
}

/* What the cache says was one state, references and all; the shards are asked for rows and references one after the other. */
static bool fits_read(const struct op *op, const struct model *state)
{
    unsigned key = op->specs[0].key;
    if (op->err == KV_NOT_FOUND)
        return state->rows[key].tag == 0;
    return state->rows[key].tag == op->seen[0].tag && state->rows[key].content == op->seen[0].content &&
           (!op->cached || op->seen[0].refs == refs_of(state, op->seen[0].content));
}

/* An answer that changed nothing must fit one state between question and answer. */
static void check_answer(const struct evidence *evidence, const struct op *op, size_t index)
{
    bool fits = false;
    size_t first, last;
    moments(evidence, op, &first, &last);
    for (size_t i = first; i <= last && !fits; i++)
        fits = op->kind == OP_READ ? fits_read(op, &evidence->states[i])
                                   : fits_transaction(op, index, &evidence->states[i]);
    if (!fits)
        sim_fail("op %zu: its answer (`%s`) fits no moment between question and answer", index, kv_err_text(op->err));
}

/* ---- listings ------------------------------------------------------------------------------------------------- */

static const struct seen *find_listed(const struct op *op, unsigned key)
{
    for (size_t i = 0; i < op->listed_count; i++) {
        if (op->listed_keys[i] == key)
            return &op->listed[i];
    }
    return NULL;
}

static bool in_range(const struct op *op, unsigned key)
{
    bool behind = op->after == 0 || key + 1 > op->after || (op->inclusive && key + 1 == op->after);
    bool before = !op->more || (op->listed_count > 0 && key <= op->listed_keys[op->listed_count - 1]);
    return behind && before;
}

static void check_list(const struct evidence *evidence, const struct op *op, size_t index)
{
    size_t first, last;
    moments(evidence, op, &first, &last);
    for (size_t i = 1; i < op->listed_count; i++) {
        if (op->listed_keys[i - 1] >= op->listed_keys[i])
            sim_fail("op %zu: a listing is out of order", index);
    }
    if (op->more && op->listed_count < op->limit)
        sim_fail("op %zu: a listing with more behind it is not full", index);
    for (unsigned key = 0; key < SIM_KEYS_MAX; key++) {
        const struct seen *listed = find_listed(op, key);
        bool always = true, fits = false;
        for (size_t i = first; i <= last; i++) {
            always = always && evidence->states[i].rows[key].tag != 0;
            fits = fits || (listed != NULL && evidence->states[i].rows[key].tag == listed->tag);
        }
        if (listed != NULL && (!fits || !in_range(op, key)))
            sim_fail("op %zu: a listing shows key %u as it never was meanwhile", index, key);
        if (listed == NULL && always && in_range(op, key))
            sim_fail("op %zu: a listing misses key %u that existed throughout", index, key);
    }
}

/* ---- at rest -------------------------------------------------------------------------------------------------- */

/* Nobody else was there: reference counts and totals are exact. */
static void check_quiet(const struct evidence *evidence, const struct op *op, size_t index)
{
    const struct model *model = &evidence->states[evidence->count];
    uint64_t keys = 0;
    if (op->err != KV_OK && (op->kind != OP_READ || op->err != KV_NOT_FOUND))
        sim_fail("op %zu failed with `%s` though nothing else was under way", index, kv_err_text(op->err));
    for (unsigned key = 0; key < SIM_KEYS_MAX; key++)
        keys += model->rows[key].tag != 0;
    if (op->kind == OP_LIST && op->total != keys)
        sim_fail("%llu keys are counted, %llu are there", (unsigned long long)op->total, (unsigned long long)keys);
    if (op->kind == OP_LIST)
        check_quiet_list(op, index, model);
    for (size_t i = 0; i < op->listed_count; i++) {
        if (op->listed[i].tag != 0 && op->listed[i].refs != refs_of(model, op->listed[i].content))
            sim_fail("a listing counts %llu references of content %u", (unsigned long long)op->listed[i].refs,
                     op->listed[i].content);
    }
    if (op->kind == OP_READ && op->err == KV_OK && op->seen[0].refs != refs_of(model, op->seen[0].content))
        sim_fail("op %zu: a read counts %llu references of content %u", index, (unsigned long long)op->seen[0].refs,
                 op->seen[0].content);
    for (size_t i = 0; i < op->count && op->kind == OP_TRANSACT; i++) {
        bool looked = op->specs[i].kind == BACKEND_HEAD && op->seen[i].found;
        if (looked && op->seen[i].refs != refs_of(model, op->seen[i].content))
            sim_fail("%llu references of content %u are counted", (unsigned long long)op->seen[i].refs,
                     op->seen[i].content);
    }
}

static void check_op(const struct evidence *evidence, const struct op *op, size_t index)
{
    bool committed = is_committed(evidence, index);
    if (op->outcome == OP_UNDER_WAY)
        sim_fail("op %zu was never answered", index);
    if (op->kind == OP_TRANSACT && op->router->process.up && op->released != 1)
        sim_fail("op %zu was not released", index);
    if (op->outcome != OP_ANSWERED || committed)
        return;
    if (op->early)
        sim_fail("op %zu was acknowledged, but is not there", index);
    if (op->kind == OP_LIST && op->quiet)
        return; /* check_quiet is stricter */
    if (op->kind == OP_LIST && op->err == KV_OK)
        check_list(evidence, op, index);
    else if (op->err == KV_OK || op->err == KV_PRECONDITION || op->err == KV_NOT_FOUND)
        check_answer(evidence, op, index);
}

void check_history(struct sim *sim, struct model *out)
{
    struct evidence evidence = {.sim = sim};
    for (unsigned i = 0; i < sim->config.shard_count; i++) {
        for (uint64_t position = 1; position <= sim->shards[i]->disk.count; position++)
            take_record(&evidence, i, position);
    }
    keep_committed(&evidence);
    evidence.states = kv_alloc_zero(evidence.count + 1, sizeof *evidence.states);
    for (size_t i = 0; i < evidence.count; i++) {
        evidence.states[i + 1] = evidence.states[i];
        check_commit(&evidence, i, &evidence.states[i + 1]);
    }
    for (size_t i = 0; i < sim->history.count; i++) {
        check_op(&evidence, &sim->history.ops[i], i);
        if (sim->history.ops[i].quiet && !is_committed(&evidence, i))
            check_quiet(&evidence, &sim->history.ops[i], i);
    }
    *out = evidence.states[evidence.count];
    free(evidence.commits);
    free(evidence.states);
}
