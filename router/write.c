/* router/write.c -- see write.h. */
#include "write.h"

#include <stdlib.h>

#include "answer.h"
#include "kv/buf.h"
#include "kv/log.h"
#include "thread.h"

static void transact(struct write *write);
static void look_first(struct write *write);

void write_drop(struct write *write)
{
    kv_assert(write->holders > 0);
    if (--write->holders > 0)
        return;
    if (write->job_counted)
        work_let_go(write->work, write->job);
    kv_buf_free(&write->job->stored);
    body_file_free(&write->job->file);
    if (write->job != &write->own_job)
        free(write->job);
    free(write);
}

/* The request died. A transaction under way goes on; a content that is being encoded is let go of. */
static void on_gone(void *state)
{
    struct write *write = state;
    write->exchange = NULL;
    if (write->job_queued)
        work_cancel(write->job);
    write_drop(write);
}

static void on_released(void *arg)
{
    write_drop(arg);
}

struct write *write_new(struct exchange *exchange, enum backend_op_kind kind, struct kv_slice content_type)
{
    struct kv_slice key = exchange->key;
    struct condition condition;
    const char *why;
    if (condition_read(exchange, &condition, &why) != KV_OK) {
        answer_error(exchange, 400, "invalid_request", "%s", why);
        return NULL;
    }
    struct write *write = kv_alloc_zero(1, sizeof(*write) + key.bytes + content_type.bytes);
    write->exchange = exchange;
    write->work = exchange->thread->server->work;
    write->holders = 1;
    write->job = &write->own_job;
    write->condition = condition;
    memcpy(write->texts, key.data, key.bytes);
    if (content_type.bytes > 0)
        memcpy(write->texts + key.bytes, content_type.data, content_type.bytes);
    write->op = (struct backend_op){.kind = kind,
                                    .key = kv_slice(write->texts, key.bytes),
                                    .content_type = kv_slice(write->texts + key.bytes, content_type.bytes)};
    exchange->state = write;
    exchange->on_gone = on_gone;
    return write;
}

static void succeed(struct write *write, const struct backend_op_result *result)
{
    struct metrics_thread *metrics = write->exchange->thread->metrics;
    bool put = write->op.kind == BACKEND_PUT;
    metrics_transaction(metrics, KV_OK);
    metrics_op(metrics, put ? METRICS_OP_PUT : METRICS_OP_DELETE, put || result->found);
    write->on_written(write, result);
}

static void fail(struct write *write, enum kv_err err)
{
    metrics_transaction(write->exchange->thread->metrics, err);
    answer_failure(write->exchange, err);
}

static void on_transacted(void *arg, enum kv_err err, size_t index, const struct backend_op_result *results)
{
    struct write *write = arg;
    (void)index;
    write->exchange->call = NULL;
    bool row_changed = err == KV_PRECONDITION && write->tries > 0; /* since it was looked at */
    if (err == KV_OK)
        succeed(write, &results[0]);
    else if (row_changed && write->tries < WRITE_TRIES_MAX)
        look_first(write);
    else
        fail(write, row_changed ? KV_OVERLOADED : err);
}

static void transact(struct write *write)
{
    struct router_thread *thread = write->exchange->thread;
    bool known = cache_get_row(thread->cache, write->op.key, &write->op.known);
    if (!known)
        write->op.known = (struct kv_row){0};
    write->keep = known && backend_may_keep(thread->backend);
    write->since = cache_now(thread->cache);
    write->holders++;
    write->exchange->call =
        backend_transact(thread->backend, &write->op, 1, 0, on_released, write, on_transacted, write);
}

static void on_looked(void *arg, enum kv_err err, const struct backend_value *value)
{
    struct write *write = arg;
    struct exchange *exchange = write->exchange;
    exchange->call = NULL;
    if (err == KV_OK && value->object.held)
        backend_close(exchange->thread->backend, &value->hold);
    if (err == KV_OK || err == KV_NOT_FOUND)
        err = condition_check_write(&write->condition, err == KV_OK ? &value->row : NULL, &write->op);
    if (err == KV_OK)
        transact(write);
    else
        fail(write, err);
}

static void look_first(struct write *write)
{
    write->tries++;
    write->exchange->call = backend_read(write->exchange->thread->backend, write->op.key, 0, on_looked, write);
}

void write_start(struct write *write)
{
    enum kv_err err = condition_plan_write(&write->condition, &write->op);
    if (err == KV_OK)
        transact(write);
    else if (err == KV_STALE)
        look_first(write);
    else
        fail(write, err);
}
