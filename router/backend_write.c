/* router/backend_write.c -- one transaction from the caller's operations to its results:
 *   stage large contents -> lock -> evaluate (plan.h) -> load what reads want -> commit or release -> results.
 * A write that knows its rows tries to do without locks first: stage -> evaluate -> commit. The caller knows them (what a cache
 * holds), or most writes create keys, and it is one of PUTs alone: then as if no key existed.
 * A row that changed because its lock was lost with its shard, a reference that is not settled yet (KV_CONFLICT) and a content that
 * is gone (KV_STALE) begin again after a pause, within the deadline; none was done. */
#include "backend_internal.h"

#include <stdlib.h>

#include "kv/clock.h"
#include "kv/log.h"
#include "plan.h"

struct write_call {
    struct backend_call head;
    const struct backend_op *ops;
    size_t count;
    uint64_t get_bytes_max;
    void (*release)(void *arg_release);
    void *arg_release;
    backend_on_transaction on_transaction;
    void *arg;
    struct plan *plan;
    size_t staged; /* contents of the plan that are through staging */
    struct stager *stager;
    struct txn *txn;
    bool guessed;          /* once is enough */
    bool guessing;         /* `txn` has no locks */
    bool guessing_absence; /* nor did anybody know the rows */
    struct loader *loader;
    size_t refused_index;                   /* the operation whose condition did not hold */
    void (*step)(struct write_call *write); /* to begin again with, after a pause */
};

static void stage_next(struct write_call *write);
static void lock(struct write_call *write);

/* What no transaction adopted would stay at its shard for as long as the link lasts. */
static void drop_staged(struct write_call *write)
{
    size_t count;
    struct plan_content *contents = plan_contents(write->plan, &count);
    for (size_t i = 0; i < count; i++) {
        backend_stage_drop(write->head.backend, &contents[i].hash, contents[i].object_id, contents[i].link_generation);
        contents[i].object_id = 0;
    }
}

static void write_end(struct write_call *write)
{
    stager_cancel(write->stager);
    loader_cancel(write->loader);
    drop_staged(write);
    plan_free(&write->plan);
    write->release(write->arg_release);
    backend_call_end(&write->head);
}

static void write_answer(struct write_call *write, enum kv_err err, size_t index,
                         const struct backend_op_result *results)
{
    if (write->head.wanted)
        write->on_transaction(write->arg, err, index, results);
    write_end(write);
}

/* The deadline passed, or nobody waits any more. Open votes are waited for all the same: they borrow from us. */
static void write_fail(struct backend_call *head, enum kv_err err)
{
    struct write_call *write = (struct write_call *)head;
    bool open = write->txn != NULL && !txn_give_up(write->txn);
    if (!open) {
        write->txn = NULL;
        write_answer(write, err, 0, NULL);
        return;
    }
    if (head->wanted)
        write->on_transaction(write->arg, KV_UNCERTAIN, 0, NULL);
    head->wanted = false;
    head->failed = KV_OK;
    head->deadline_ms = UINT64_MAX;
}

static void resume(struct backend_call *head)
{
    struct write_call *write = (struct write_call *)head;
    write->step(write);
}

/* Begins again from `step`, a little later, unless nobody waits for it any more. */
static void again(struct write_call *write, void (*step)(struct write_call *write))
{
    write->step = step;
    if (write->head.wanted)
        backend_call_pause(&write->head, resume);
    else
        write_end(write);
}

/* ---- guessing ------------------------------------------------------------------------------------------------- */

/* Where most PUTs create keys, a write goes without locks at first: a round less, and a conflict when the guess was wrong. */
enum { CREATIONS_MAX = 64, CREATIONS_LOST = 8 };

/* A wrong guess costs a prepare and an abort, three times what a right one saves: it must be right nine times of ten. */
static void learn(struct backend *backend, bool created)
{
    int creations = backend->creations + (created ? 1 : -CREATIONS_LOST);
    backend->creations = creations > CREATIONS_MAX    ? CREATIONS_MAX
                         : creations < -CREATIONS_MAX ? -CREATIONS_MAX
                                                      : creations;
}

static bool only_puts(const struct write_call *write)
{
    for (size_t i = 0; i < write->count; i++) {
        if (write->ops[i].kind != BACKEND_PUT)
            return false;
    }
    return true;
}

static bool is_known(const struct write_call *write)
{
    return write->count == 1 && write->ops[0].known.txn_id != 0;
}

/* ---- commit or release ---------------------------------------------------------------------------------------- */

static void stage_again(struct write_call *write)
{
    drop_staged(write);
    write->staged = 0;
    stage_next(write);
}

static void on_outcome(void *arg, enum kv_err err, const struct txn_effect *effects)
{
    struct write_call *write = arg;
    bool guessed_wrong = write->guessing && err == KV_CONFLICT;
    uint64_t id = txn_id(write->txn);
    write->txn = NULL;
    if (write->guessing_absence && (err == KV_OK || err == KV_CONFLICT))
        learn(write->head.backend, err == KV_OK);
    write->guessing = write->guessing_absence = false;
    if (err == KV_OK)
        write_answer(write, KV_OK, 0, plan_results(write->plan, id, effects));
    else if (guessed_wrong && write->head.wanted)
        lock(write); /* at once: nobody is in the way */
    else if (err == KV_CONFLICT)
        again(write, lock);
    else if (err == KV_STALE)
        again(write, stage_again);
    else
        write_answer(write, err, 0, NULL);
}

static void on_released(void *arg, bool held)
{
    struct write_call *write = arg;
    write->txn = NULL;
    if (held)
        write_answer(write, KV_OK, 0, plan_results(write->plan, 0, NULL));
    else
        again(write, lock);
}

static void conclude(struct write_call *write)
{
    if (!plan_writes(write->plan)) {
        txn_release(write->txn, on_released);
        return;
    }
    size_t count;
    const struct txn_op *ops = plan_ops(write->plan, &count);
    if (!txn_commit(write->txn, ops, count, on_outcome))
        backend_call_fail_later(&write->head, KV_OVERLOADED);
}

/* Ends a transaction that was not to be: nothing was done. */
static void refuse(struct write_call *write, enum kv_err err, size_t index)
{
    bool released = txn_give_up(write->txn);
    kv_assert(released);
    write->txn = NULL;
    write_answer(write, err, index, NULL);
}

/* ---- lock, evaluate, load ------------------------------------------------------------------------------------- */

static void on_loaded(void *arg, enum kv_err err)
{
    struct write_call *write = arg;
    write->loader = NULL;
    if (err == KV_OK) {
        conclude(write);
    } else if (err == KV_CONFLICT || err == KV_STALE) {
        txn_give_up(write->txn);
        write->txn = NULL;
        again(write, lock);
    } else {
        refuse(write, err, 0);
    }
}

static void on_refused(void *arg, bool held)
{
    struct write_call *write = arg;
    write->txn = NULL;
    if (held)
        write_answer(write, KV_PRECONDITION, write->refused_index, NULL);
    else
        again(write, lock);
}

/* Rows of several keys are one state only if no lock was lost with its shard: otherwise the conditions before this one may have
 * held at another time. One row is always one state. */
static void refuse_condition(struct write_call *write, size_t index)
{
    size_t count;
    plan_keys(write->plan, &count);
    write->refused_index = index;
    if (count > 1)
        txn_release(write->txn, on_refused);
    else
        refuse(write, KV_PRECONDITION, index);
}

static bool any_present(const struct txn_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (rows[i].present)
            return true;
    }
    return false;
}

static void on_locked(void *arg, const struct txn_row *rows)
{
    struct write_call *write = arg;
    size_t index = 0, count;
    enum kv_err err = plan_evaluate(write->plan, rows, kv_clock_unix_s(), &index);
    plan_keys(write->plan, &count);
    if (!write->guessed && only_puts(write))
        learn(write->head.backend, !any_present(rows, count));
    if (err == KV_PRECONDITION) {
        refuse_condition(write, index);
        return;
    }
    uint64_t get_bytes = err == KV_OK ? plan_get_bytes(write->plan) : 0;
    if (get_bytes > write->get_bytes_max)
        err = KV_TOO_LARGE;
    if (err != KV_OK) {
        refuse(write, err, get_bytes);
        return;
    }
    write->loader = loader_new(write->head.backend, write->plan, on_loaded, write);
    if (write->loader == NULL)
        conclude(write);
}

/* Evaluates with rows that seem to be there and prepares at once. False: not tried. A condition that does not hold then proves
 * nothing. */
static bool guess(struct write_call *write)
{
    struct backend *backend = write->head.backend;
    size_t count, index;
    const struct kv_slice *keys = plan_keys(write->plan, &count);
    bool known = is_known(write);
    if (write->guessed || (!known && (backend->creations <= 0 || !only_puts(write))))
        return false;
    write->guessed = true;
    struct txn_row row = {.present = true, .row = write->ops[0].known};
    enum kv_err err = plan_evaluate(write->plan, known ? &row : NULL, kv_clock_unix_s(), &index);
    if (err != KV_OK || (write->txn = txn_begin_blind(backend->txns, keys, count, write)) == NULL)
        return false;
    write->guessing = true;
    write->guessing_absence = !known;
    conclude(write);
    return true;
}

static void lock(struct write_call *write)
{
    if (guess(write))
        return;
    size_t count;
    const struct kv_slice *keys = plan_keys(write->plan, &count);
    write->txn = txn_begin(write->head.backend->txns, keys, count, on_locked, write);
    if (write->txn == NULL)
        backend_call_fail_later(&write->head, KV_OVERLOADED);
}

/* ---- stage ---------------------------------------------------------------------------------------------------- */

static void on_staged(void *arg, enum kv_err err, uint64_t object_id, uint64_t link_generation)
{
    struct write_call *write = arg;
    write->stager = NULL;
    if (err != KV_OK) {
        write_answer(write, err, 0, NULL);
        return;
    }
    size_t count;
    struct plan_content *content = &plan_contents(write->plan, &count)[write->staged++];
    content->object_id = object_id;
    content->link_generation = link_generation;
    stage_next(write);
}

static void stage_next(struct write_call *write)
{
    size_t count;
    const struct plan_content *contents = plan_contents(write->plan, &count);
    for (; write->staged < count; write->staged++) {
        const struct backend_content *given = contents[write->staged].given;
        if (given == NULL || given->stored.bytes <= KV_INLINE_BYTES_MAX)
            continue;
        write->stager = stager_new(&write->head, given, on_staged, write);
        return;
    }
    backend_call_renew(&write->head); /* the bytes are there: from here on the wait is for locks and votes */
    lock(write);
}

struct backend_call *backend_transact(struct backend *backend, const struct backend_op *ops, size_t count,
                                      uint64_t get_bytes_max, void (*release)(void *arg_release), void *arg_release,
                                      backend_on_transaction on_transaction, void *arg)
{
    struct write_call *write = backend_call_new(backend, sizeof *write, write_fail);
    write->ops = ops;
    write->count = count;
    write->get_bytes_max = get_bytes_max;
    write->release = release;
    write->arg_release = arg_release;
    write->on_transaction = on_transaction;
    write->arg = arg;
    write->plan = plan_new(ops, count, backend->shard_count);
    stage_next(write);
    return &write->head;
}
