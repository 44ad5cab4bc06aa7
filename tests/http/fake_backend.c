/* tests/http/fake_backend.c -- see fake_backend.h. One mutex around everything; lists, since tests are small. */
#include "fake_backend.h"

#include <h2o.h>
#include <pthread.h>
#include <stdlib.h>

#include "kv/clock.h"
#include "kv/log.h"

struct fake_object {
    struct fake_object *next;
    struct kv_object object; /* bytes: the whole stored form, owned */
    struct kv_hash hash;
    size_t holds;
};

struct fake_row {
    struct fake_row *next;
    struct kv_slice key; /* owned, as its content type */
    struct kv_row row;
};

struct backend {
    h2o_context_t *context;
    size_t pending;
};

enum call_kind { CALL_READ, CALL_FETCH, CALL_TRANSACT, CALL_RELEASE };

struct backend_call {
    h2o_timeout_entry_t timer;
    struct backend *backend;
    enum call_kind kind;
    bool cancelled;
    void *arg;
    struct kv_slice key;
    uint64_t bytes_max, offset, object_id;
    backend_on_value on_value;
    backend_on_piece on_piece;
    backend_on_transaction on_transaction;
    const struct backend_op *op;
    void (*release)(void *arg_release);
    void *arg_release;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fake_object *objects;
static struct fake_row *rows;
static uint64_t last_id;
static enum kv_err fail_next;
static bool hold;
static uint64_t garble = UINT64_MAX;
static uint64_t piece_max = UINT64_MAX;
static unsigned stale_fetches, races;
static const char *race_key, *unready;
static size_t holds, unreleased, calls, waiting, fetches;
static uint64_t fetched_bytes;

#define KNOB(statement)                                                                                                \
    do {                                                                                                               \
        pthread_mutex_lock(&lock);                                                                                     \
        statement;                                                                                                     \
        pthread_mutex_unlock(&lock);                                                                                   \
    } while (0)

void fake_fail_next(enum kv_err err)
{
    KNOB(fail_next = err);
}

void fake_hold(bool value)
{
    KNOB(hold = value);
}

void fake_garble(uint64_t stored_offset)
{
    KNOB(garble = stored_offset);
}

void fake_piece_max(uint64_t bytes)
{
    KNOB(piece_max = bytes);
}

void fake_stale_fetches(unsigned count)
{
    KNOB(stale_fetches = count);
}

void fake_race(const char *key, unsigned count)
{
    KNOB(race_key = key; races = count);
}

void fake_unready(const char *why)
{
    KNOB(unready = why);
}

#define COUNTER(type, name, expression)                                                                                \
    type name(void)                                                                                                    \
    {                                                                                                                  \
        type value = 0;                                                                                                \
        KNOB(value = (expression));                                                                                    \
        return value;                                                                                                  \
    }

static size_t count_objects(void)
{
    size_t count = 0;
    for (struct fake_object *object = objects; object != NULL; object = object->next)
        count += object->object.refs > 0;
    return count;
}

static size_t count_rows(void)
{
    size_t count = 0;
    for (struct fake_row *row = rows; row != NULL; row = row->next)
        count++;
    return count;
}

COUNTER(size_t, fake_holds, holds)
COUNTER(size_t, fake_unreleased, unreleased)
COUNTER(size_t, fake_calls, calls)
COUNTER(size_t, fake_waiting, waiting)
COUNTER(size_t, fake_fetches, fetches)
COUNTER(size_t, fake_objects, count_objects())
COUNTER(size_t, fake_keys, count_rows())
COUNTER(uint64_t, fake_fetched_bytes, fetched_bytes)

/* ---- the map ------------------------------------------------------------------------------------------------------ */

static struct fake_row **find_row(struct kv_slice key)
{
    struct fake_row **at = &rows;
    while (*at != NULL && !kv_slice_equal((*at)->key, key))
        at = &(*at)->next;
    return at;
}

static struct fake_object *find_object(const struct kv_hash *hash)
{
    struct fake_object *object = objects;
    while (object != NULL && !kv_hash_equal(&object->hash, hash))
        object = object->next;
    return object;
}

static struct fake_object *add_object(const struct backend_content *content)
{
    struct fake_object *object = kv_alloc_zero(1, sizeof(*object));
    *object = (struct fake_object){.next = objects, .hash = content->hash};
    object->object = (struct kv_object){.size = content->size,
                                        .stored_bytes = content->stored.bytes,
                                        .codec = content->codec,
                                        .object_id = ++last_id,
                                        .bytes = kv_slice(kv_copy(content->stored), content->stored.bytes)};
    objects = object;
    return object;
}

static void clear_row(struct fake_row **at)
{
    struct fake_row *old = *at;
    if (old == NULL)
        return;
    find_object(&old->row.hash)->object.refs--;
    *at = old->next;
    free((void *)old->key.data);
    free((void *)old->row.content_type.data);
    free(old);
}

static struct fake_row *put(const struct backend_op *op, struct backend_op_result *result)
{
    struct fake_object *object = find_object(&op->content->hash);
    result->existed = object != NULL && object->object.refs > 0;
    if (object == NULL)
        object = add_object(op->content);
    object->object.refs++;
    clear_row(find_row(op->key));
    struct fake_row *row = kv_alloc_zero(1, sizeof(*row));
    *row = (struct fake_row){.next = rows, .key = kv_slice(kv_copy(op->key), op->key.bytes)};
    row->row = (struct kv_row){.hash = op->content->hash,
                               .size = op->content->size,
                               .created_s = kv_clock_unix_s(),
                               .txn_id = ++last_id,
                               .content_type = kv_slice(kv_copy(op->content_type), op->content_type.bytes)};
    rows = row;
    return row;
}

static bool holds_true(const struct backend_op *op, const struct fake_row *row)
{
    switch (op->match) {
    case BACKEND_MATCH_ANY:
        return row != NULL;
    case BACKEND_MATCH_ABSENT:
        return row == NULL;
    case BACKEND_MATCH_HASH:
        return row != NULL && kv_hash_equal(&row->row.hash, &op->match_hash);
    default:
        return true;
    }
}

/* The content under `key` changes just before the transaction runs. */
static void maybe_race(void)
{
    struct fake_row *row = races == 0 ? NULL : *find_row(kv_slice_text(race_key));
    if (row == NULL)
        return;
    races--;
    row->row.hash.bytes[0] ^= 0xff; /* another content, as far as anybody can tell */
    struct backend_content content = {.hash = row->row.hash};
    if (find_object(&content.hash) == NULL)
        add_object(&content)->object.refs = 1000;
}

/* ---- calls -------------------------------------------------------------------------------------------------------- */

static enum kv_err take_failure(void)
{
    enum kv_err err = fail_next;
    fail_next = KV_OK;
    return err;
}

/* A copy of stored bytes, garbled if so wished. */
static uint8_t *read_stored(const struct fake_object *object, uint64_t offset, uint64_t bytes)
{
    uint8_t *copy = kv_copy(kv_slice(object->object.bytes.data + offset, bytes));
    if (garble >= offset && garble < offset + bytes)
        copy[garble - offset] ^= 1;
    return copy;
}

static void answer_read(struct backend_call *call)
{
    pthread_mutex_lock(&lock);
    enum kv_err err = take_failure();
    struct fake_row *row = *find_row(call->key);
    struct backend_value value = {0};
    uint8_t *bytes = NULL;
    if (err == KV_OK && row == NULL)
        err = KV_NOT_FOUND;
    if (err == KV_OK) {
        struct fake_object *object = find_object(&row->row.hash);
        uint64_t stored = object->object.stored_bytes;
        uint64_t given = call->bytes_max < stored ? call->bytes_max : stored;
        value = (struct backend_value){.row = row->row, .object = object->object};
        bytes = read_stored(object, 0, given);
        value.object.bytes = kv_slice(bytes, given);
        value.object.held = given < stored && call->bytes_max > 0;
        object->holds += value.object.held;
        holds += value.object.held;
    }
    if (err == KV_OK && call->cancelled && value.object.held)
        kv_assert(false); /* a cancelled call is never answered */
    pthread_mutex_unlock(&lock);
    call->on_value(call->arg, err, err == KV_OK ? &value : NULL);
    free(bytes);
}

static void answer_fetch(struct backend_call *call)
{
    pthread_mutex_lock(&lock);
    enum kv_err err = take_failure();
    struct fake_object *object = objects;
    while (object->object.object_id != call->object_id)
        object = object->next;
    kv_assert(object->holds > 0);
    if (stale_fetches > 0) {
        stale_fetches--;
        err = KV_STALE;
    }
    uint64_t left = object->object.stored_bytes - call->offset;
    uint64_t bytes = call->bytes_max < left ? call->bytes_max : left;
    bytes = bytes < piece_max ? bytes : piece_max;
    uint8_t *copy = read_stored(object, call->offset, bytes);
    fetches++;
    fetched_bytes += bytes;
    pthread_mutex_unlock(&lock);
    call->on_piece(call->arg, err, kv_slice(copy, err == KV_OK ? bytes : 0));
    free(copy);
}

static void answer_transaction(struct backend_call *call)
{
    struct backend_op_result result = {0};
    pthread_mutex_lock(&lock);
    maybe_race();
    enum kv_err err = take_failure();
    struct fake_row **at = find_row(call->op->key);
    result.found = *at != NULL;
    if (err == KV_OK && !holds_true(call->op, *at))
        err = KV_PRECONDITION;
    if (err == KV_OK && call->op->kind == BACKEND_PUT)
        result.row = put(call->op, &result)->row;
    else if (err == KV_OK)
        clear_row(at);
    pthread_mutex_unlock(&lock);
    if (!call->cancelled)
        call->on_transaction(call->arg, err, 0, err == KV_OK ? &result : NULL);
}

static void on_timer(h2o_timeout_entry_t *entry);

static void link_timer(struct backend_call *call, bool soon)
{
    h2o_context_t *context = call->backend->context;
    h2o_timeout_link(context->loop, soon ? &context->zero_timeout : &context->hundred_ms_timeout, &call->timer);
}

static void answer(struct backend_call *call)
{
    switch (call->kind) {
    case CALL_READ:
        answer_read(call);
        break;
    case CALL_FETCH:
        answer_fetch(call);
        break;
    case CALL_TRANSACT:
        answer_transaction(call);
        break;
    case CALL_RELEASE:
        KNOB(unreleased--);
        call->release(call->arg_release);
        break;
    }
}

static void on_timer(h2o_timeout_entry_t *entry)
{
    struct backend_call *call = H2O_STRUCT_FROM_MEMBER(struct backend_call, timer, entry);
    bool wait = false;
    KNOB(wait = hold);
    if (wait) {
        link_timer(call, false);
        return;
    }
    KNOB(waiting -= call->kind != CALL_RELEASE);
    answer(call);
    if (call->kind == CALL_TRANSACT) {
        call->kind = CALL_RELEASE;
        link_timer(call, false);
        return;
    }
    call->backend->pending--;
    free((void *)call->key.data);
    free(call);
}

static struct backend_call *start(struct backend *backend, enum call_kind kind, void *arg)
{
    struct backend_call *call = kv_alloc_zero(1, sizeof(*call));
    call->timer.cb = on_timer;
    call->backend = backend;
    call->kind = kind;
    call->arg = arg;
    backend->pending++;
    KNOB(calls++; waiting++);
    link_timer(call, true);
    return call;
}

void backend_cancel(struct backend_call *call)
{
    if (call == NULL)
        return;
    call->cancelled = true;
    if (call->kind == CALL_TRANSACT)
        return;
    kv_assert(call->kind != CALL_RELEASE); /* answered already: the HTTP side kept a dead call */
    KNOB(waiting--);
    h2o_timeout_unlink(&call->timer);
    call->backend->pending--;
    free((void *)call->key.data);
    free(call);
}

struct backend_call *backend_read(struct backend *backend, struct kv_slice key, uint64_t bytes_max,
                                  backend_on_value on_value, void *arg)
{
    struct backend_call *call = start(backend, CALL_READ, arg);
    kv_assert(bytes_max <= KV_PIECE_BYTES_MAX);
    call->key = kv_slice(kv_copy(key), key.bytes);
    call->bytes_max = bytes_max;
    call->on_value = on_value;
    return call;
}

struct backend_call *backend_fetch(struct backend *backend, const struct kv_hash *hash, uint64_t object_id,
                                   uint64_t offset, uint64_t bytes_max, backend_on_piece on_piece, void *arg)
{
    struct backend_call *call = start(backend, CALL_FETCH, arg);
    kv_assert(bytes_max > 0 && bytes_max <= KV_PIECE_BYTES_MAX && hash != NULL);
    call->object_id = object_id;
    call->offset = offset;
    call->bytes_max = bytes_max;
    call->on_piece = on_piece;
    return call;
}

void backend_close(struct backend *backend, const struct kv_hash *hash, uint64_t object_id)
{
    (void)backend;
    pthread_mutex_lock(&lock);
    struct fake_object *object = find_object(hash);
    kv_assert(object != NULL && object->object.object_id == object_id && object->holds > 0);
    object->holds--;
    holds--;
    pthread_mutex_unlock(&lock);
}

struct backend_call *backend_transact(struct backend *backend, const struct backend_op *ops, size_t count,
                                      void (*release)(void *arg_release), void *arg_release,
                                      backend_on_transaction on_transaction, void *arg)
{
    struct backend_call *call = start(backend, CALL_TRANSACT, arg);
    kv_assert(count == 1);
    call->op = ops;
    call->release = release;
    call->arg_release = arg_release;
    call->on_transaction = on_transaction;
    KNOB(unreleased++);
    return call;
}

bool backend_ready(struct backend *backend, char *why, size_t why_bytes)
{
    bool ready = true;
    (void)backend;
    KNOB(ready = unready == NULL; if (!ready) snprintf(why, why_bytes, "%s", unready));
    return ready;
}

struct backend *backend_new(const struct kv_settings *settings, struct st_h2o_context_t *context, int sockets_fd,
                            unsigned thread_index)
{
    struct backend *backend = kv_alloc_zero(1, sizeof(*backend));
    (void)settings;
    (void)sockets_fd;
    (void)thread_index;
    backend->context = context;
    return backend;
}

size_t backend_pending(const struct backend *backend)
{
    return backend->pending;
}
