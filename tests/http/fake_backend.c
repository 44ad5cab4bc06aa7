/* tests/http/fake_backend.c -- see fake_backend.h. One mutex around everything; lists, since tests are small. */
#include "fake_backend.h"

#include <h2o.h>
#include <pthread.h>
#include <stdlib.h>

#include "codec.h"
#include "kv/clock.h"
#include "kv/log.h"
#include "marks.h"
#include "kv/settings.h"
#include "wire/messages.h"

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
    struct codec *codec;
    struct arena *arena; /* that pieces of this thread come in */
    size_t pending;
};

enum call_kind { CALL_READ, CALL_FETCH, CALL_TRANSACT, CALL_RELEASE, CALL_LIST, CALL_STATS };

struct backend_call {
    h2o_timeout_entry_t timer;
    struct backend *backend;
    enum call_kind kind;
    bool cancelled;
    void (*on_over)(void *arg);
    void *on_over_arg;
    void *arg;
    struct kv_slice key;
    uint64_t bytes_max, offset, object_id;
    backend_on_value on_value;
    backend_on_piece on_piece;
    backend_on_transaction on_transaction;
    const struct backend_op *ops;
    size_t op_count;
    uint64_t get_bytes_max;
    void (*release)(void *arg_release);
    void *arg_release;
    struct backend_list list; /* slices owned */
    backend_on_list on_list;
    backend_on_stats on_stats;
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
static int shard_down = -1;
static size_t holds, unreleased, calls, waiting, fetches;
static _Atomic size_t slots_wanted;
static uint64_t fetched_bytes;
static struct marks *marks;
static bool may_keep;

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

void fake_may_keep(bool value)
{
    KNOB(may_keep = value);
}

void fake_forget(void)
{
    KNOB(marks_forget(marks));
}

void fake_shard_down(int shard_index)
{
    KNOB(shard_down = shard_index);
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

/* Reads and writes exclude each other here: a write may mark what it changes once it is done. */
static uint64_t mark(struct kv_slice bytes)
{
    if (marks == NULL)
        return 0;
    uint32_t slot = marks_slot(marks, marks_hash(marks, bytes));
    return marks_end(marks, slot, marks_begin(marks, slot));
}

static struct fake_object *find_object(const struct kv_hash *hash)
{
    struct fake_object *object = objects;
    while (object != NULL && !kv_hash_equal(&object->hash, hash))
        object = object->next;
    return object;
}

/* The stored form, all of it, wherever it is. */
static uint8_t *copy_stored(const struct backend_content *content)
{
    if (content->stored.data != NULL || content->read == NULL)
        return kv_copy(content->stored);
    uint8_t *copy = kv_alloc(content->stored.bytes);
    size_t half = content->stored.bytes / 2; /* in two parts, the second first: as a stager may */
    kv_assert(content->read(content->read_arg, half, copy + half, content->stored.bytes - half) == KV_OK);
    kv_assert(content->read(content->read_arg, 0, copy, half) == KV_OK);
    return copy;
}

static struct fake_object *add_object(const struct backend_content *content)
{
    struct fake_object *object = kv_alloc_zero(1, sizeof(*object));
    *object = (struct fake_object){.next = objects, .hash = content->hash};
    object->object = (struct kv_object){.size = content->size,
                                        .stored_bytes = content->stored.bytes,
                                        .codec = content->codec,
                                        .object_id = ++last_id,
                                        .bytes = kv_slice(copy_stored(content), content->stored.bytes)};
    objects = object;
    return object;
}

static void clear_row(struct fake_row **at)
{
    struct fake_row *old = *at;
    if (old == NULL)
        return;
    find_object(&old->row.hash)->object.refs--;
    mark(old->key);
    mark(kv_hash_slice(&old->row.hash));
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
    struct marks_proof proof = {mark(op->key), mark(kv_hash_slice(&op->content->hash))};
    if (!result->existed) {
        result->refs = 1;
        result->proof = proof;
    }
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
    mark(row->key);
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

/* As backend_arena.c: in a slot when there is one, else lent for the callback alone. Every fourth time there is none. */
static struct kv_slice put_into_slot(struct backend_call *call, struct kv_slice bytes, struct arena_slot *slot)
{
    if (slots_wanted++ % 4 == 0 || bytes.bytes == 0 || bytes.bytes > KV_SLOT_BYTES_MAX ||
        !arena_take(call->backend->arena, bytes.bytes, slot))
        return bytes;
    struct kv_slice place = arena_peek(slot, bytes.bytes);
    memcpy((void *)(uintptr_t)place.data, bytes.data, bytes.bytes);
    return place;
}

/* Unless somebody took it. */
static void reuse_slot(struct arena_slot *slot, struct kv_slice bytes)
{
    if (slot->arena != NULL)
        memset((void *)(uintptr_t)bytes.data, 0xdd, bytes.bytes); /* the next one's */
    arena_give_back(slot);
}

static void answer_read(struct backend_call *call)
{
    pthread_mutex_lock(&lock);
    enum kv_err err = take_failure();
    struct fake_row *row = *find_row(call->key);
    struct backend_value value = {0};
    struct arena_slot slot = {0};
    uint8_t *bytes = NULL;
    if (err == KV_OK && row == NULL)
        err = KV_NOT_FOUND;
    if (err == KV_OK) {
        struct fake_object *object = find_object(&row->row.hash);
        uint64_t stored = object->object.stored_bytes;
        uint64_t given = call->bytes_max < stored ? call->bytes_max : stored;
        value = (struct backend_value){.row = row->row,
                                       .object = object->object,
                                       .hold = {row->row.hash, object->object.object_id, 1},
                                       .slot = &slot};
        bytes = read_stored(object, 0, given);
        value.object.bytes = put_into_slot(call, kv_slice(bytes, given), &slot);
        value.object.held = given < stored && call->bytes_max > 0;
        object->holds += value.object.held;
        holds += value.object.held;
    }
    if (err == KV_OK && call->cancelled && value.object.held)
        kv_assert(false); /* a cancelled call is never answered */
    pthread_mutex_unlock(&lock);
    call->on_value(call->arg, err, err == KV_OK ? &value : NULL);
    reuse_slot(&slot, value.object.bytes);
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
    struct arena_slot slot = {0};
    fetches++;
    fetched_bytes += bytes;
    pthread_mutex_unlock(&lock);
    struct kv_slice piece = put_into_slot(call, kv_slice(copy, err == KV_OK ? bytes : 0), &slot);
    call->on_piece(call->arg, err, piece, &slot);
    reuse_slot(&slot, piece);
    free(copy);
}

/* What op `index` would find: the last earlier one on its key decides, else the map. `out` is good for holds_true. */
static bool would_find(const struct backend_call *call, size_t index, struct fake_row *out)
{
    const struct backend_op *op = &call->ops[index];
    for (size_t i = index; i-- > 0;) {
        const struct backend_op *before = &call->ops[i];
        if (!kv_slice_equal(before->key, op->key) || (before->kind != BACKEND_PUT && before->kind != BACKEND_DELETE))
            continue;
        if (before->kind == BACKEND_DELETE)
            return false;
        out->row.hash = before->content->hash;
        out->row.size = before->content->size;
        return true;
    }
    struct fake_row *row = *find_row(op->key);
    if (row != NULL)
        *out = *row;
    return row != NULL;
}

/* All conditions, before anything is done. */
static enum kv_err check_all(const struct backend_call *call, size_t *index)
{
    uint64_t get_bytes = 0;
    for (size_t i = 0; i < call->op_count; i++) {
        struct fake_row row = {0};
        bool found = would_find(call, i, &row);
        *index = i;
        if (!holds_true(&call->ops[i], found ? &row : NULL))
            return KV_PRECONDITION;
        get_bytes += found && call->ops[i].kind == BACKEND_GET ? row.row.size : 0;
    }
    if (get_bytes <= call->get_bytes_max)
        return KV_OK;
    *index = get_bytes;
    return KV_TOO_LARGE;
}

static void look(const struct backend_call *call, const struct backend_op *op, const struct fake_row *row,
                 struct backend_op_result *result)
{
    struct fake_object *object = find_object(&row->row.hash);
    struct kv_buf content = {0};
    result->row = row->row;
    result->row.content_type = kv_slice(kv_copy(row->row.content_type), row->row.content_type.bytes);
    result->refs = object->object.refs;
    if (op->kind != BACKEND_GET)
        return;
    kv_assert(codec_decode(call->backend->codec, object->object.bytes, object->object.size, &content) == KV_OK);
    result->content = kv_buf_peek(&content); /* freed after the callback */
}

static void apply_all(const struct backend_call *call, struct backend_op_result *results)
{
    for (size_t i = 0; i < call->op_count; i++) {
        const struct backend_op *op = &call->ops[i];
        struct fake_row **at = find_row(op->key);
        results[i].found = *at != NULL;
        if (op->kind == BACKEND_PUT) {
            results[i].row = put(op, &results[i])->row;
            results[i].row.content_type = kv_slice(NULL, 0);
        } else if (op->kind == BACKEND_DELETE) {
            clear_row(at);
        } else if (*at != NULL) {
            look(call, op, *at, &results[i]);
        }
    }
}

static void answer_transaction(struct backend_call *call)
{
    struct backend_op_result *results = kv_alloc_zero(call->op_count, sizeof(*results));
    size_t index = 0;
    pthread_mutex_lock(&lock);
    maybe_race();
    enum kv_err err = take_failure();
    if (err == KV_OK)
        err = check_all(call, &index);
    if (err == KV_OK)
        apply_all(call, results);
    pthread_mutex_unlock(&lock);
    if (!call->cancelled)
        call->on_transaction(call->arg, err, index, err == KV_OK ? results : NULL);
    for (size_t i = 0; i < call->op_count; i++) {
        if (results[i].content.bytes > 0) /* a peek is over */
            memset((void *)(uintptr_t)results[i].content.data, 0xee, results[i].content.bytes);
        free((void *)(uintptr_t)results[i].content.data);
        free((void *)(uintptr_t)results[i].row.content_type.data);
    }
    free(results);
}

/* ---- listing and counters ------------------------------------------------------------------------------------------ */

static int compare_rows(const void *a, const void *b)
{
    return kv_slice_compare((*(struct fake_row *const *)a)->key, (*(struct fake_row *const *)b)->key);
}

/* The shared prefix of a key, up to and with the first delimiter behind the prefix; empty when there is none. */
static struct kv_slice group_of(const struct backend_list *list, struct kv_slice key)
{
    if (list->delimiter.bytes == 0 || key.bytes < list->prefix.bytes)
        return kv_slice(NULL, 0);
    const uint8_t *behind = key.data + list->prefix.bytes;
    const uint8_t *found = memmem(behind, key.bytes - list->prefix.bytes, list->delimiter.data, list->delimiter.bytes);
    return found == NULL ? kv_slice(NULL, 0) : kv_slice(key.data, (size_t)(found - key.data) + list->delimiter.bytes);
}

/* All that the listing would show without limit and offset; `entries` has room for every row. */
static size_t list_all(const struct backend_list *list, struct fake_row **sorted, size_t count,
                       struct backend_list_entry *entries)
{
    size_t shown = 0;
    for (size_t i = 0; i < count; i++) {
        struct kv_slice key = sorted[i]->key;
        struct kv_slice group = group_of(list, key);
        struct kv_slice name = group.bytes > 0 ? group : key;
        bool again = shown > 0 && group.bytes > 0 && kv_slice_equal(entries[shown - 1].key, group);
        bool seen = list->after.bytes > 0 && (kv_slice_compare(key, list->after) <= 0 ||
                                              (group.bytes > 0 && kv_slice_equal(group, list->after)));
        if (!kv_slice_starts_with(key, list->prefix) || again || seen)
            continue;
        struct fake_object *object = find_object(&sorted[i]->row.hash);
        entries[shown++] = (struct backend_list_entry){
            .key = name, .is_prefix = group.bytes > 0, .row = sorted[i]->row, .refs = object->object.refs};
    }
    return shown;
}

static void answer_list(struct backend_call *call)
{
    pthread_mutex_lock(&lock);
    size_t total = count_rows(), filled = 0;
    struct fake_row **sorted = kv_alloc_zero(total + 1, sizeof(struct fake_row *));
    struct backend_list_entry *entries = kv_alloc_zero(total + 1, sizeof(*entries));
    enum kv_err err = take_failure();
    for (struct fake_row *row = rows; row != NULL; row = row->next)
        sorted[filled++] = row;
    qsort(sorted, total, sizeof(struct fake_row *), compare_rows);
    size_t shown = list_all(&call->list, sorted, total, entries);
    size_t skipped = call->list.offset < shown ? call->list.offset : shown;
    size_t left = shown - skipped;
    size_t given = left < call->list.limit ? left : call->list.limit;
    if (err == KV_OK) /* under the lock: the rows are the map's own */
        call->on_list(call->arg, KV_OK, entries + skipped, given, left > given, total);
    else
        call->on_list(call->arg, err, NULL, 0, false, 0);
    free(sorted);
    free(entries);
    pthread_mutex_unlock(&lock);
}

/* Two shards; the second reports one thing that nobody knows. */
static void answer_stats(struct backend_call *call)
{
    struct kv_buf bufs[2] = {{0}};
    struct kv_slice bodies[2];
    pthread_mutex_lock(&lock);
    for (int i = 0; i < 2; i++) {
        if (i != shard_down) {
            kv_put_counters_begin(&bufs[i], 6);
            kv_put_counter(&bufs[i], "keys", i == 0 ? count_rows() : 0);
            kv_put_counter(&bufs[i], "puts", 10 + (uint64_t)i);
            kv_put_counter(&bufs[i], "journal_flush_ns_0", 2);
            kv_put_counter(&bufs[i], "journal_flush_ns_17", 1);
            kv_put_counter(&bufs[i], "journal_flush_ns_sum", 1234567890);
            kv_put_counter(&bufs[i], "of_a_later_version", 1);
        }
        bodies[i] = kv_buf_peek(&bufs[i]);
    }
    pthread_mutex_unlock(&lock);
    call->on_stats(call->arg, bodies, 2);
    for (int i = 0; i < 2; i++)
        kv_buf_free(&bufs[i]);
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
    case CALL_LIST:
        answer_list(call);
        break;
    case CALL_STATS:
        answer_stats(call);
        break;
    case CALL_RELEASE:
        KNOB(unreleased--);
        call->release(call->arg_release);
        break;
    }
}

static void free_call(struct backend_call *call)
{
    free((void *)(uintptr_t)call->key.data);
    free((void *)(uintptr_t)call->list.after.data);
    free((void *)(uintptr_t)call->list.prefix.data);
    free((void *)(uintptr_t)call->list.delimiter.data);
    free(call);
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
    bool dropped = call->cancelled && call->kind != CALL_TRANSACT && call->kind != CALL_RELEASE;
    KNOB(waiting -= call->kind != CALL_RELEASE && !dropped);
    if (!dropped)
        answer(call);
    if (call->kind == CALL_TRANSACT) {
        call->kind = CALL_RELEASE;
        link_timer(call, false);
        return;
    }
    if (call->on_over != NULL)
        call->on_over(call->on_over_arg);
    call->backend->pending--;
    free_call(call);
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

/* What was asked is worked at all the same, for nobody. */
void backend_cancel_and_tell(struct backend_call *call, void (*on_over)(void *arg), void *arg)
{
    if (call == NULL)
        return;
    call->cancelled = true;
    call->on_over = on_over;
    call->on_over_arg = arg;
    if (call->kind == CALL_TRANSACT)
        return;
    kv_assert(call->kind != CALL_RELEASE); /* answered already: the HTTP side kept a dead call */
    KNOB(waiting--);
}

void backend_cancel(struct backend_call *call)
{
    backend_cancel_and_tell(call, NULL, NULL);
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

struct backend_call *backend_fetch(struct backend *backend, struct backend_hold *held, uint64_t offset,
                                   uint64_t bytes_max, backend_on_piece on_piece, void *arg)
{
    struct backend_call *call = start(backend, CALL_FETCH, arg);
    kv_assert(bytes_max > 0 && bytes_max <= KV_PIECE_BYTES_MAX);
    call->object_id = held->object_id;
    call->offset = offset;
    call->bytes_max = bytes_max;
    call->on_piece = on_piece;
    return call;
}

void backend_close(struct backend *backend, const struct backend_hold *held)
{
    (void)backend;
    pthread_mutex_lock(&lock);
    struct fake_object *object = find_object(&held->hash);
    kv_assert(object != NULL && object->object.object_id == held->object_id && object->holds > 0);
    object->holds--;
    holds--;
    pthread_mutex_unlock(&lock);
}

struct backend_call *backend_transact(struct backend *backend, const struct backend_op *ops, size_t count,
                                      uint64_t get_bytes_max, void (*release)(void *arg_release), void *arg_release,
                                      backend_on_transaction on_transaction, void *arg)
{
    struct backend_call *call = start(backend, CALL_TRANSACT, arg);
    kv_assert(count >= 1);
    call->ops = ops;
    call->op_count = count;
    call->get_bytes_max = get_bytes_max;
    call->release = release;
    call->arg_release = arg_release;
    call->on_transaction = on_transaction;
    KNOB(unreleased++);
    return call;
}

static struct kv_slice keep(struct kv_slice bytes)
{
    return kv_slice(kv_copy(bytes), bytes.bytes);
}

struct backend_call *backend_list(struct backend *backend, const struct backend_list *list, backend_on_list on_list,
                                  void *arg)
{
    struct backend_call *call = start(backend, CALL_LIST, arg);
    kv_assert(list->limit >= 1 && list->limit <= KV_LIST_LIMIT_MAX);
    call->list = *list;
    call->list.after = keep(list->after);
    call->list.prefix = keep(list->prefix);
    call->list.delimiter = keep(list->delimiter);
    call->on_list = on_list;
    return call;
}

struct backend_call *backend_stats(struct backend *backend, uint64_t wait_ms, backend_on_stats on_stats, void *arg)
{
    struct backend_call *call = start(backend, CALL_STATS, arg);
    kv_assert(wait_ms > 0);
    call->on_stats = on_stats;
    return call;
}

/* One call to each shard besides. */
void backend_queues(const struct backend *backend, struct backend_queues *out)
{
    *out = (struct backend_queues){.requests = backend->pending, .transactions = 7, .shard_count = 2};
    for (int i = 0; i < 2; i++) {
        out->shards[i].calls = 1;
        KNOB(out->shards[i].answers = i != shard_down);
    }
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
    backend->codec = codec_new(0);
    struct body_file *file;
    backend->arena = arena_new(&file);
    kv_assert(backend->arena != NULL);
    body_file_free(&file);
    return backend;
}

void backend_use_marks(struct backend *backend, struct marks *theirs)
{
    (void)backend;
    KNOB(marks = theirs);
}

bool backend_may_keep(const struct backend *backend)
{
    bool may;
    (void)backend;
    KNOB(may = may_keep);
    return may;
}

void backend_trim(struct backend *backend)
{
    (void)backend; /* nothing of it is large */
}

size_t backend_pending(const struct backend *backend)
{
    return backend->pending;
}
