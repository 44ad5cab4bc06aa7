/* router/api_batch.c -- POST /batch: one transaction from the body to the results.
 * Does:     looks at headers and size; reads the body, transacts, writes the results; sends them in pieces as the client takes them.
 *           Bodies and results above HTTP_INLINE_BYTES_MAX are copied (BATCH_COPY_BYTES in a turn of the loop) and read or written
 *           by the thread of task.h.
 * Owns:     struct post, counted: the exchange's part ends with the exchange, the task's with on_done, the backend's with its
 *           release.
 * Limits:   what the answer may take of memory is taken from the address's share (h2o_guard_room.c) before anything is done: as
 *           GETS_BYTES_MIN says at first; a transaction whose GETs find more does nothing, waits for as much, and begins again.
 * Fails:    a malformed body before anything happened. 429 when large batches under way hold too much memory.
 * Tests:    http/test_http_batch.c, system/test_batch.c. */
#include <stdlib.h>

#include "admit.h"
#include "answer.h"
#include "api.h"
#include "batch.h"
#include "h2o_guard.h"
#include "kv/log.h"
#include "metrics.h"
#include "task.h"
#include "thread.h"

enum {
    BATCH_COPY_BYTES = 4 * 1024 * 1024,
    BATCH_SEND_BYTES = 256 * 1024,
    RESULT_BYTES = 512,        /* of an operation in the answer, without its key, which the body has, and its content */
    GETS_BYTES_MIN = 64 << 10, /* expected of all contents together, */
    GET_BYTES = 4 << 10,       /* and of each besides */
};

struct post {
    struct exchange *exchange; /* NULL: the client left */
    struct tasks *tasks;
    unsigned holders;
    struct batch batch;
    struct batch_refusal refusal;
    enum kv_err read_err;
    uint64_t value_bytes_max;
    struct guard_share share; /* of the memory that answers may take */
    uint64_t get_bytes_max;   /* that is in it */
    uint64_t reserved_bytes;  /* of task.h, 0: none */
    struct kv_buf body;       /* copy of a large one */
    h2o_timeout_entry_t copy_timer;
    struct task task;
    struct batch_results results; /* copies of large ones */
    h2o_generator_t generator;
    struct kv_buf answer;
    size_t sent;
};

static void on_room(struct guard_share *share);

static void drop(struct post *post)
{
    kv_assert(post->holders > 0);
    if (--post->holders > 0)
        return;
    if (post->reserved_bytes > 0)
        tasks_release(post->tasks, post->reserved_bytes);
    batch_free(&post->batch);
    batch_results_free(&post->results);
    kv_buf_free(&post->body);
    kv_buf_free(&post->answer);
    free(post);
}

static void on_gone(void *state)
{
    struct post *post = state;
    post->exchange = NULL;
    h2o_guard_share_end(&post->share);
    if (h2o_timeout_is_linked(&post->copy_timer))
        h2o_timeout_unlink(&post->copy_timer);
    drop(post);
}

/* Runs off the loop; the exchange may go meanwhile. */
static void offload(struct post *post, void (*run)(struct task *task, struct codec *codec),
                    void (*on_done)(struct task *task))
{
    post->holders++;
    post->task = (struct task){.run = run, .on_done = on_done, .receiver = &post->exchange->thread->tasked};
    task_submit(post->tasks, &post->task);
}

/* ---- the answer --------------------------------------------------------------------------------------------------- */

static void send_next(struct post *post)
{
    size_t left = post->answer.bytes - post->sent;
    size_t bytes = left < BATCH_SEND_BYTES ? left : BATCH_SEND_BYTES;
    struct kv_slice piece = kv_slice(post->answer.data + post->sent, bytes);
    post->sent += bytes;
    answer_send(post->exchange, piece, bytes == left); /* after the last one `post` may be gone */
}

static void on_taken(h2o_generator_t *generator, h2o_req_t *req)
{
    struct post *post = H2O_STRUCT_FROM_MEMBER(struct post, generator, generator);
    (void)req;
    http_unwatch(post->exchange);
    send_next(post);
}

static uint64_t count_ops(const struct batch *batch, enum backend_op_kind kind)
{
    uint64_t count = 0;
    for (size_t i = 0; i < batch->count; i++)
        count += batch->ops[i].kind == kind;
    return count;
}

static void answer(struct post *post)
{
    struct exchange *exchange = post->exchange;
    if (post->answer.bytes < post->share.bytes)
        h2o_guard_share_change(&post->share, post->answer.bytes, on_room);
    metrics_add(exchange->thread->metrics, METRICS_BATCH_OPERATIONS, post->batch.count);
    answer_field(exchange, HPACK_CONTENT_TYPE, kv_slice_text(batch_content_type(post->batch.format)));
    answer_begin(exchange, 200, post->answer.bytes, &post->generator);
    send_next(post);
}

static void run_write(struct task *task, struct codec *codec)
{
    struct post *post = H2O_STRUCT_FROM_MEMBER(struct post, task, task);
    (void)codec;
    batch_write(&post->batch, post->results.results, &post->answer);
    batch_results_free(&post->results);
}

static void on_written(struct task *task)
{
    struct post *post = H2O_STRUCT_FROM_MEMBER(struct post, task, task);
    if (post->exchange != NULL)
        answer(post);
    drop(post);
}

/* ---- the transaction ---------------------------------------------------------------------------------------------- */

static void fail(struct post *post, enum kv_err err, size_t index)
{
    struct exchange *exchange = post->exchange;
    if (err == KV_CORRUPT) {
        metrics_add(exchange->thread->metrics, METRICS_CHECKSUM_FAILURES, 1);
        kv_log_request(KV_LOG_ERROR, exchange->request_id, "damaged content met by a batch");
    }
    if (err == KV_PRECONDITION)
        answer_error(exchange, 412, "precondition_failed",
                     "Operation %zu: its precondition does not hold; nothing was done.", index);
    else if (err == KV_TOO_LARGE)
        answer_error(
            exchange, 413, "too_large",
            "The values that the gets ask for are larger together than MAX_BATCH_BYTES (%lu); nothing was done.",
            exchange->thread->server->settings->batch_bytes_max);
    else
        answer_failure(exchange, err);
}

/* Of the answer, and of the contents beside it from which it is written. */
static size_t memory_needed(const struct post *post)
{
    return 2 * post->get_bytes_max + RESULT_BYTES * post->batch.count + http_body(post->exchange).bytes;
}

/* More than was expected, and nothing is done yet. False: more than MAX_BATCH_BYTES. */
static bool try_with_more(struct post *post, uint64_t get_bytes)
{
    if (get_bytes <= post->get_bytes_max || get_bytes > post->exchange->thread->server->settings->batch_bytes_max)
        return false;
    post->get_bytes_max = get_bytes;
    if (h2o_guard_share_change(&post->share, memory_needed(post), on_room))
        on_room(&post->share);
    return true;
}

static void count_done(const struct post *post, const struct backend_op_result *results)
{
    struct metrics_thread *metrics = post->exchange->thread->metrics;
    uint64_t deleted = 0;
    for (size_t i = 0; i < post->batch.count; i++)
        deleted += post->batch.ops[i].kind == BACKEND_DELETE && results[i].found;
    metrics_op(metrics, METRICS_OP_PUT, count_ops(&post->batch, BACKEND_PUT));
    metrics_op(metrics, METRICS_OP_GET, count_ops(&post->batch, BACKEND_GET) + count_ops(&post->batch, BACKEND_HEAD));
    metrics_op(metrics, METRICS_OP_DELETE, deleted);
}

static void on_transacted(void *arg, enum kv_err err, size_t index, const struct backend_op_result *results)
{
    struct post *post = arg;
    post->exchange->call = NULL;
    if (err == KV_TOO_LARGE && try_with_more(post, index))
        return;
    metrics_transaction(post->exchange->thread->metrics, err);
    if (err == KV_OK)
        count_done(post, results);
    if (err != KV_OK) {
        fail(post, err, index);
    } else if (batch_results_bytes(&post->batch, results) <= HTTP_INLINE_BYTES_MAX) {
        batch_write(&post->batch, results, &post->answer);
        answer(post);
    } else {
        batch_results_copy(&post->batch, results, &post->results); /* the backend's are gone after this */
        offload(post, run_write, on_written);
    }
}

static void on_released(void *arg)
{
    drop(arg);
}

/* Each operation needs its right and a key inside of the token's prefix, else nothing is done. */
static bool is_allowed(const struct post *post)
{
    static const unsigned rights[] = {
        [BACKEND_PUT] = TOKEN_WRITE,
        [BACKEND_GET] = TOKEN_READ,
        [BACKEND_HEAD] = TOKEN_READ,
        [BACKEND_DELETE] = TOKEN_DELETE,
    };
    for (size_t i = 0; i < post->batch.count; i++) {
        const struct backend_op *op = &post->batch.ops[i];
        const char *why = grant_refuses(&post->exchange->grant, rights[op->kind], op->key);
        if (why == NULL)
            continue;
        admit_forbid(post->exchange, "Operation %zu: %s; nothing was done.", i, why);
        return false;
    }
    return true;
}

static void on_room(struct guard_share *share)
{
    struct post *post = H2O_STRUCT_FROM_MEMBER(struct post, share, share);
    post->holders++;
    post->exchange->call = backend_transact(post->exchange->thread->backend, post->batch.ops, post->batch.count,
                                            post->get_bytes_max, on_released, post, on_transacted, post);
}

/* A GET may ask for what the same batch has put. */
static uint64_t expected_get_bytes(const struct post *post)
{
    uint64_t gets = count_ops(&post->batch, BACKEND_GET);
    uint64_t bytes = GETS_BYTES_MIN + gets * GET_BYTES + http_body(post->exchange).bytes;
    uint64_t bytes_max = post->exchange->thread->server->settings->batch_bytes_max;
    return gets == 0 ? 0 : bytes < bytes_max ? bytes : bytes_max;
}

static void transact(struct post *post)
{
    if (post->read_err != KV_OK) {
        answer_error(post->exchange, post->refusal.status, post->refusal.code, "%s", post->refusal.sentence);
    } else if (post->batch.count == 0) {
        batch_write(&post->batch, NULL, &post->answer);
        answer(post);
    } else if (is_allowed(post)) {
        post->get_bytes_max = expected_get_bytes(post);
        h2o_guard_share_take(&post->share, post->exchange->req, memory_needed(post), on_room);
    }
}

/* ---- the body ----------------------------------------------------------------------------------------------------- */

static void read_body(struct post *post, struct kv_slice body, struct codec *codec)
{
    struct batch_limits limits = {post->value_bytes_max, codec};
    post->read_err = batch_read(&post->batch, body, &limits, &post->refusal);
}

static void run_read(struct task *task, struct codec *codec)
{
    struct post *post = H2O_STRUCT_FROM_MEMBER(struct post, task, task);
    read_body(post, kv_buf_peek(&post->body), codec);
    kv_buf_free(&post->body);
}

static void on_read(struct task *task)
{
    struct post *post = H2O_STRUCT_FROM_MEMBER(struct post, task, task);
    if (post->exchange != NULL)
        transact(post);
    drop(post);
}

/* One piece in a turn: other requests have theirs in between. */
static void copy_next(struct post *post)
{
    struct kv_slice body = http_body(post->exchange);
    size_t left = body.bytes - post->body.bytes;
    size_t bytes = left < BATCH_COPY_BYTES ? left : BATCH_COPY_BYTES;
    h2o_context_t *context = &post->exchange->thread->context;
    kv_buf_append(&post->body, kv_slice(body.data + post->body.bytes, bytes));
    if (bytes == left)
        offload(post, run_read, on_read);
    else
        h2o_timeout_link(context->loop, &context->zero_timeout, &post->copy_timer);
}

static void on_copy(h2o_timeout_entry_t *entry)
{
    copy_next(H2O_STRUCT_FROM_MEMBER(struct post, copy_timer, entry));
}

static void read_large(struct post *post)
{
    uint64_t bytes = http_body(post->exchange).bytes;
    if (tasks_reserve(post->tasks, bytes) != KV_OK) {
        answer_failure(post->exchange, KV_OVERLOADED);
        return;
    }
    post->reserved_bytes = bytes;
    kv_buf_reserve(&post->body, bytes);
    copy_next(post);
}

/* ---- headers ------------------------------------------------------------------------------------------------------ */

/* Answers and returns false when a header or the size is not what it should be. */
static bool check(struct exchange *exchange, enum batch_format *format)
{
    uint64_t bytes_max = exchange->thread->server->settings->batch_bytes_max;
    if (batch_format_of(http_header(exchange, H2O_TOKEN_CONTENT_TYPE, NULL), format) != KV_OK) {
        answer_header(exchange, "accept-post", kv_slice_text("application/json, application/msgpack"));
        answer_error(exchange, 415, "unsupported_media_type",
                     "The Content-Type of a batch is application/json or application/msgpack.");
    } else if (http_body_is_encoded(exchange)) {
        answer_error(exchange, 400, "invalid_request", "Content-Encoding is not supported on a batch.");
    } else if (http_body(exchange).bytes > bytes_max) {
        answer_error(exchange, 413, "too_large", "The batch has %zu bytes, MAX_BATCH_BYTES allows %lu.",
                     http_body(exchange).bytes, bytes_max);
    } else {
        return true;
    }
    return false;
}

void api_batch(struct exchange *exchange)
{
    enum batch_format format;
    if (!check(exchange, &format))
        return;
    struct post *post = kv_alloc_zero(1, sizeof(*post));
    post->exchange = exchange;
    post->tasks = exchange->thread->server->tasks;
    post->holders = 1;
    post->value_bytes_max = exchange->thread->server->settings->value_bytes_max;
    post->copy_timer.cb = on_copy;
    post->generator.proceed = on_taken;
    batch_init(&post->batch, format);
    post->batch.hides_refs = !grant_sees_all(&exchange->grant);
    exchange->state = post;
    exchange->on_gone = on_gone;
    if (http_body(exchange).bytes > HTTP_INLINE_BYTES_MAX) {
        read_large(post);
        return;
    }
    read_body(post, http_body(exchange), exchange->thread->codec);
    transact(post);
}
