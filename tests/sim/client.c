/* tests/sim/client.c -- see client.h. This file: who asks, when, and what becomes of the answers. What is asked is in draw.c. */
#include "client.h"

#include <stdlib.h>

#include "bundle.h"
#include "draw.h"
#include "kv/log.h"
#include "router.h"

/* The operation that is being asked: its call has no name yet. */
static struct op *asking;

static void next_turn(struct sim *sim, uint64_t delay_us_max);

/* ---- answers -------------------------------------------------------------------------------------------------- */

enum { GET_BYTES_MAX = 64 << 20 };

static void end_op(struct op *op, enum op_outcome outcome, enum kv_err err)
{
    struct sim *sim = sim_running;
    op->outcome = outcome;
    op->err = err;
    op->answered = sim_stamp(sim);
    SIM_TRACE(sim, "op %zu of client %u: %s", (size_t)(op - sim->history.ops), op->client,
              outcome == OP_UNKNOWN ? "never heard of again" : kv_err_text(err));
    if (!op->quiet)
        next_turn(sim, sim->config.think_us_max);
}

static void expect_err(const struct op *op, enum kv_err err, const char *what)
{
    bool read = op->kind == OP_READ && (err == KV_NOT_FOUND || err == KV_OVERLOADED);
    bool write = op->kind == OP_TRANSACT &&
                 (err == KV_PRECONDITION || err == KV_OVERLOADED || err == KV_NO_SPACE || err == KV_UNCERTAIN);
    bool fine = err == KV_OK || err == KV_UNAVAILABLE || read || write;
    if (sim_running->config.gentle)
        fine = fine && err != KV_UNAVAILABLE && err != KV_UNCERTAIN && err != KV_NO_SPACE;
    if (!fine)
        sim_fail("op %zu: a %s must not end in `%s`", (size_t)(op - sim_running->history.ops), what, kv_err_text(err));
}

static struct seen seen_row(const struct kv_row *row)
{
    struct seen seen = {.found = true};
    int content = client_content_of(&row->hash);
    char text[16] = {0};
    if (content < 0 || row->content_type.bytes >= sizeof text)
        sim_fail("a row was read that nobody wrote");
    memcpy(text, row->content_type.data, row->content_type.bytes);
    seen.tag = (uint32_t)strtoul(text, NULL, 10);
    seen.content = (unsigned)content;
    if (row->size != client_contents[content].given.size)
        sim_fail("a row says %llu bytes of a content of %llu", (unsigned long long)row->size,
                 (unsigned long long)client_contents[content].given.size);
    return seen;
}

static struct thread *thread_of(const struct op *op)
{
    return &op->router->threads[op->client % sim_running->config.thread_count];
}

/* As router/api_put.c does it; what is no PUT has no proof. */
static void keep_written(const struct op *op, const struct backend_op_result *result)
{
    const struct content *content = &client_contents[op->specs[0].content];
    struct kv_object object = {.size = content->given.size,
                               .stored_bytes = content->given.stored.bytes,
                               .codec = content->given.codec,
                               .refs = result->refs,
                               .bytes = content->given.stored};
    if (op->keep && op->count == 1 && cache_wants(thread_of(op)->cache, &object))
        cache_put_written(thread_of(op)->cache, op->since, result->proof, client_key(op->specs[0].key), &result->row,
                          &object, kv_buf_peek(&content->bytes));
}

static void on_transaction(void *arg, enum kv_err err, size_t index, const struct backend_op_result *results)
{
    struct op *op = arg;
    if (op->early)
        return;
    expect_err(op, err, "transaction");
    op->index = index;
    for (size_t i = 0; i < op->count && err == KV_OK; i++) {
        bool has_row = op->specs[i].kind == BACKEND_PUT || (op->specs[i].kind != BACKEND_DELETE && results[i].found);
        if (has_row)
            op->seen[i] = seen_row(&results[i].row);
        op->seen[i].found = results[i].found;
        op->seen[i].refs = results[i].refs;
        if (op->specs[i].kind == BACKEND_GET && results[i].found &&
            !kv_slice_equal(results[i].content, kv_buf_peek(&client_contents[op->seen[i].content].bytes)))
            sim_fail("op %zu: a batch got wrong bytes", (size_t)(op - sim_running->history.ops));
    }
    if (err == KV_OK)
        keep_written(op, &results[0]);
    end_op(op, OP_ANSWERED, err);
}

static void on_list(void *arg, enum kv_err err, const struct backend_list_entry *entries, size_t count, bool more,
                    uint64_t total)
{
    struct op *op = arg;
    expect_err(op, err, "listing");
    if (count > SIM_LIST_MAX)
        sim_fail("a listing has %zu entries", count);
    for (size_t i = 0; i < count; i++) {
        struct kv_slice key = entries[i].key;
        if (key.bytes >= sizeof op->listed_text[i])
            sim_fail("a listing shows a key that nobody wrote");
        memcpy(op->listed_text[i], key.data, key.bytes);
        op->listed_keys[i] = client_key_index(key);
        if (entries[i].is_prefix)
            continue;
        op->listed[i] = seen_row(&entries[i].row);
        op->listed[i].refs = entries[i].refs;
    }
    op->listed_count = count;
    op->more = more;
    op->total = total;
    end_op(op, OP_ANSWERED, err);
}

/* ---- reading, piece by piece ---------------------------------------------------------------------------------- */

static void on_piece(void *arg, enum kv_err err, struct kv_slice bytes, struct arena_slot *slot);

static void expect_bytes(struct op *op, struct kv_slice bytes)
{
    struct kv_slice stored = kv_buf_peek(&client_contents[op->seen[0].content].stored);
    if (bytes.bytes > stored.bytes - op->offset ||
        !kv_slice_equal(bytes, kv_slice(stored.data + op->offset, bytes.bytes)))
        sim_fail("op %zu: wrong bytes were read", (size_t)(op - sim_running->history.ops));
    op->offset += bytes.bytes;
}

static void close_read(struct op *op)
{
    struct backend *backend = &op->router->threads[op->client % sim_running->config.thread_count].backend;
    if (op->held && op->router->process.up)
        backend_close(backend, &op->hold);
    op->held = false;
}

static void read_on(struct op *op)
{
    struct backend *backend = &op->router->threads[op->client % sim_running->config.thread_count].backend;
    if (op->offset == op->stored_bytes) {
        close_read(op);
        end_op(op, OP_ANSWERED, KV_OK);
        return;
    }
    uint64_t bytes_max = random_between(&sim_running->random, op->stored_bytes / 4 + 1, KV_PIECE_BYTES_MAX);
    if (bytes_max > op->stored_bytes - op->offset)
        bytes_max = op->stored_bytes - op->offset;
    op->call = backend_fetch(backend, &op->hold, op->offset, bytes_max, on_piece, op);
}

/* A content that is gone ends the reading: what was read until then is right all the same. */
static void on_piece(void *arg, enum kv_err err, struct kv_slice bytes, struct arena_slot *slot)
{
    struct op *op = arg;
    (void)slot;
    if (err != KV_OK && err != KV_STALE && err != KV_UNAVAILABLE)
        sim_fail("op %zu: a piece cannot be read: %s", (size_t)(op - sim_running->history.ops), kv_err_text(err));
    if (err == KV_OK && bytes.bytes == 0)
        sim_fail("op %zu: an empty piece", (size_t)(op - sim_running->history.ops));
    if (err != KV_OK) {
        close_read(op);
        end_op(op, OP_ANSWERED, KV_OK);
        return;
    }
    expect_bytes(op, bytes);
    read_on(op);
}

/* As router/api_get.c does it. */
static void keep(struct op *op, const struct backend_value *value)
{
    struct cache *cache = thread_of(op)->cache;
    struct kv_buf content = {0};
    struct kv_object object = value->object;
    if (object.size > CACHE_CONTENT_BYTES_MAX) {
        object.held = false;
        object.bytes = kv_slice(NULL, 0);
    }
    if (!op->keep || !cache_wants(cache, &object))
        return;
    if (object.bytes.bytes > 0 &&
        codec_decode(router_codec(), value->object.bytes, value->object.size, &content) != KV_OK)
        sim_fail("op %zu: a content cannot be decoded", (size_t)(op - sim_running->history.ops));
    cache_put(cache, op->since, client_key(op->specs[0].key), &value->row, &object, kv_buf_peek(&content));
    kv_buf_free(&content);
}

static void on_value(void *arg, enum kv_err err, const struct backend_value *value)
{
    struct op *op = arg;
    expect_err(op, err, "read");
    if (err != KV_OK) {
        end_op(op, OP_ANSWERED, err);
        return;
    }
    op->seen[0] = seen_row(&value->row);
    op->seen[0].refs = value->object.refs;
    op->hold = value->hold;
    op->held = value->object.held;
    op->stored_bytes = value->object.stored_bytes;
    op->offset = 0;
    keep(op, value);
    if (op->stored_bytes != client_contents[op->seen[0].content].stored.bytes)
        sim_fail("op %zu: the stored form has another size", (size_t)(op - sim_running->history.ops));
    expect_bytes(op, value->object.bytes);
    if (op->held) {
        read_on(op);
        return;
    }
    if (op->limit > 0 && op->offset != op->stored_bytes)
        sim_fail("op %zu: bytes are missing and nobody holds them", (size_t)(op - sim_running->history.ops));
    end_op(op, OP_ANSWERED, KV_OK);
}

/* ---- asking --------------------------------------------------------------------------------------------------- */

static void ask_list(struct backend *backend, struct op *op)
{
    struct backend_list list = {.inclusive = op->inclusive, .limit = op->limit, .offset = op->offset};
    list.prefix = kv_slice_text(op->prefix);
    list.delimiter = kv_slice_text(op->delimited ? "/" : "");
    if (op->after > 0)
        list.after = client_key(op->after - 1);
    op->call = backend_list(backend, &list, on_list, op);
}

/* From the cache, at once, or from the shards. */
static void ask_value(struct backend *backend, struct op *op)
{
    struct cache *cache = thread_of(op)->cache;
    struct kv_slice key = client_key(op->specs[0].key);
    struct cache_entry *entry = cache_get(cache, key);
    op->keep = txn_ids_are_recovered(backend->ids);
    op->since = cache_now(cache);
    if (entry == NULL) {
        op->call = backend_read(backend, key, op->limit, on_value, op);
        return;
    }
    op->keep = false;
    op->cached = true;
    if (entry->object.bytes.bytes == 0)
        op->limit = 0; /* the bytes of a large content are in memory, or asked for with another read */
    on_value(op, KV_OK, &(struct backend_value){.row = entry->row, .object = entry->object});
    cache_let_go(entry);
}

/* As router/write.c does it. */
static void ask_write(struct backend *backend, struct op *op)
{
    struct cache *cache = thread_of(op)->cache;
    struct backend_op *first = &op->bundle->ops[0];
    bool writes = first->kind == BACKEND_PUT || first->kind == BACKEND_DELETE;
    if (op->count == 1 && writes)
        cache_get_row(cache, first->key, &first->known);
    op->keep = txn_ids_are_recovered(backend->ids);
    op->since = cache_now(cache);
    op->call = backend_transact(backend, op->bundle->ops, op->count, GET_BYTES_MAX, bundle_release, op->bundle,
                                on_transaction, op);
}

static void ask(struct sim *sim, struct op *op)
{
    struct backend *backend = &sim->router->threads[op->client % sim->config.thread_count].backend;
    op->router = sim->router;
    op->invoked = sim_stamp(sim);
    asking = op;
    if (sim->trace)
        draw_trace(sim, op);
    if (op->kind == OP_TRANSACT)
        op->bundle = bundle_new(sim, op);
    struct heap *before = heap_enter(&sim->router->process.heap);
    if (op->kind == OP_READ)
        ask_value(backend, op);
    else if (op->kind == OP_LIST)
        ask_list(backend, op);
    else
        ask_write(backend, op);
    heap_enter(before);
    asking = NULL;
}

static struct op *add_op(struct sim *sim)
{
    kv_assert(sim->history.count < sim->history.capacity);
    struct op *op = &sim->history.ops[sim->history.count++];
    *op = (struct op){0};
    return op;
}

static void on_cancel(void *arg)
{
    struct op *op = arg;
    if (op->outcome != OP_UNDER_WAY || !op->router->process.up)
        return;
    struct heap *before = heap_enter(&op->router->process.heap);
    backend_cancel(op->call);
    close_read(op);
    heap_enter(before);
    end_op(op, OP_UNKNOWN, KV_CANCELLED);
}

static void on_turn(void *arg)
{
    struct sim *sim = arg;
    if (sim->ops_left == 0 || sim->healed) {
        sim->clients_busy--;
        return;
    }
    if (sim->router == NULL || !sim->router->process.up) {
        next_turn(sim, 20 * SIM_MS);
        return;
    }
    sim->ops_left--;
    struct op *op = add_op(sim);
    draw_op(sim, op);
    ask(sim, op);
    if (random_chance(&sim->random, sim->config.cancel_per_mille))
        sim_at(sim, random_below(&sim->random, 20 * SIM_MS), NULL, true, on_cancel, op);
}

static void next_turn(struct sim *sim, uint64_t delay_us_max)
{
    sim_at(sim, random_below(&sim->random, delay_us_max + 1), NULL, true, on_turn, sim);
}

void clients_start(struct sim *sim)
{
    sim->clients_busy = sim->config.client_count;
    for (unsigned i = 0; i < sim->config.client_count; i++)
        next_turn(sim, 10 * SIM_MS);
}

struct op *client_ask(struct sim *sim, const struct op *asked)
{
    struct op *op = add_op(sim);
    *op = *asked;
    op->quiet = true;
    ask(sim, op);
    return op;
}

void client_on_router_dead(const struct router *router)
{
    struct history *history = &sim_running->history;
    for (size_t i = 0; i < history->count; i++) {
        if (history->ops[i].router == router && history->ops[i].outcome == OP_UNDER_WAY)
            end_op(&history->ops[i], OP_UNKNOWN, KV_CANCELLED);
    }
}

/* ---- which transaction is whose ------------------------------------------------------------------------------- */

/* Calls are freed and their place is used again: the newest operation is meant. */
static struct op *op_of_call(const void *call)
{
    struct history *history = &sim_running->history;
    for (size_t i = history->count; i-- > 0;) {
        struct op *op = &history->ops[i];
        if (op->kind == OP_TRANSACT && op->call == call && op != asking)
            return op;
    }
    return asking;
}

void client_on_begun(uint64_t txn_id, const void *call)
{
    struct sim *sim = sim_running;
    struct history *history = &sim->history;
    struct op *op = asking != NULL ? asking : op_of_call(call);
    kv_assert(op != NULL);
    struct heap *before = heap_enter(&sim->heap);
    if (history->begun_count == history->begun_capacity) {
        history->begun_capacity = history->begun_capacity * 2 + 256;
        history->begun = kv_realloc(history->begun, history->begun_capacity * sizeof *history->begun);
    }
    history->begun[history->begun_count++] = (struct begun){txn_id, (size_t)(op - history->ops), sim->now_us};
    heap_enter(before);
    SIM_TRACE(sim, "op %zu begins transaction %llx", (size_t)(op - history->ops), (unsigned long long)txn_id);
}

void client_ack_early(uint64_t txn_id)
{
    struct history *history = &sim_running->history;
    for (size_t i = history->begun_count; i-- > 0;) {
        struct op *op = &history->ops[history->begun[i].op];
        if (history->begun[i].txn_id != txn_id)
            continue;
        if (op->outcome == OP_UNDER_WAY) {
            op->early = true;
            end_op(op, OP_ANSWERED, KV_OK);
        }
        return;
    }
}
