/* router/forget.c -- see forget.h.
 * Why it is sound: a thread publishes a number not above its new id BEFORE it takes the id from the counter, and whoever computes
 * loads the counter BEFORE it looks at the threads: so the minimum found is never above an id in use, also of a thread that
 * begins meanwhile. An id that grows old enters `named` BEFORE `young` rises above it, and `young` is looked at BEFORE `named`. */
#include "forget.h"

#include <stdlib.h>

#include "kv/log.h"
#include "kv/model.h"
#include "wire/messages.h"

_Static_assert((uint64_t)KV_ROUTER_THREADS_MAX *TXNS_ACTIVE_MAX * 9 < KV_FRAME_BODY_BYTES_MAX,
               "all of them fit a FORGET");

/* ---- ids ------------------------------------------------------------------------------------------------------ */

void txn_ids_init(struct txn_ids *ids, uint64_t epoch)
{
    *ids = (struct txn_ids){.first = kv_txn_id(epoch, 0), .mutex = PTHREAD_MUTEX_INITIALIZER};
}

void txn_ids_clear(struct txn_ids *ids)
{
    for (unsigned i = 0; i < KV_ROUTER_THREADS_MAX; i++)
        kv_buf_free(&ids->threads[i].named);
}

uint64_t txn_ids_next(struct txn_ids *ids, unsigned thread_index)
{
    struct txn_ids_thread *thread = &ids->threads[thread_index];
    if (atomic_load(&thread->young) == 0)
        atomic_store(&thread->young, ids->first + atomic_load(&ids->sequence) + 1);
    uint64_t sequence = atomic_fetch_add(&ids->sequence, 1) + 1;
    if (sequence >> KV_TXN_SEQUENCE_BITS != 0)
        kv_fatal("transaction ids of this epoch are used up: starting anew");
    return ids->first + sequence;
}

/* What was begun before the mark before last is old. */
static void mark(const struct txn_ids *ids, struct txn_ids_thread *thread, uint64_t now_ms)
{
    if (thread->marked_ms != 0 && now_ms - thread->marked_ms < FORGET_OPEN_MS)
        return;
    thread->old_below = thread->old_below_next;
    thread->old_below_next = ids->first + atomic_load(&ids->sequence) + 1;
    thread->marked_ms = now_ms;
}

void txn_ids_publish(struct txn_ids *ids, unsigned thread_index, const struct txns *txns, uint64_t now_ms)
{
    struct txn_ids_thread *thread = &ids->threads[thread_index];
    mark(ids, thread, now_ms);
    if (thread->named.bytes > 0 && now_ms - thread->published_ms < FORGET_NAMED_MS)
        return; /* many, maybe: what was published stays true */
    thread->published_ms = now_ms;
    pthread_mutex_lock(&ids->mutex);
    thread->named.bytes = 0;
    uint64_t young = txns_ids(txns, thread->old_below, &thread->named);
    pthread_mutex_unlock(&ids->mutex);
    atomic_store(&thread->young, young == UINT64_MAX ? 0 : young);
}

int txn_ids_compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

void txn_ids_recovered(struct txn_ids *ids)
{
    atomic_store(&ids->recovered, true);
}

bool txn_ids_are_recovered(const struct txn_ids *ids)
{
    return atomic_load(&ids->recovered);
}

/* ---- telling -------------------------------------------------------------------------------------------------- */

/* What may be forgotten: ids from `from` up to `below`, but for `named` (ascending, each a uint64_t). */
struct statement {
    uint64_t from, below;
    struct kv_buf named;
};

struct listener {
    struct forget *forget;
    struct call *call;
    uint64_t telling; /* the version that is on its way, */
    uint64_t told;    /* and the last one that arrived */
};

struct forget {
    struct calls *calls;
    unsigned shard_count;
    struct txn_ids *ids;
    struct statement now;
    uint64_t version; /* counts what `now` was */
    uint64_t made_ms;
    struct listener listeners[KV_SHARDS_MAX];
};

struct forget *forget_new(struct calls *calls, unsigned shard_count, struct txn_ids *ids)
{
    struct forget *forget = kv_alloc_zero(1, sizeof *forget);
    forget->calls = calls;
    forget->shard_count = shard_count;
    forget->ids = ids;
    for (unsigned i = 0; i < shard_count; i++)
        forget->listeners[i].forget = forget;
    return forget;
}

void forget_free(struct forget **forget)
{
    if (*forget == NULL)
        return;
    for (unsigned i = 0; i < (*forget)->shard_count; i++)
        calls_cancel((*forget)->calls, (*forget)->listeners[i].call);
    kv_buf_free(&(*forget)->now.named);
    free(*forget);
    *forget = NULL;
}

static struct statement make_statement(struct txn_ids *ids)
{
    struct statement made = {.from = txn_ids_are_recovered(ids) ? 0 : ids->first};
    made.below = ids->first + atomic_load(&ids->sequence) + 1;
    for (unsigned i = 0; i < KV_ROUTER_THREADS_MAX; i++) {
        uint64_t young = atomic_load(&ids->threads[i].young);
        if (young != 0 && young < made.below)
            made.below = young;
    }
    pthread_mutex_lock(&ids->mutex);
    for (unsigned i = 0; i < KV_ROUTER_THREADS_MAX; i++)
        kv_buf_append(&made.named, kv_buf_peek(&ids->threads[i].named));
    pthread_mutex_unlock(&ids->mutex);
    if (made.named.bytes > 0)
        qsort(made.named.data, made.named.bytes / sizeof(uint64_t), sizeof(uint64_t), txn_ids_compare);
    return made;
}

static bool is_same(const struct statement *a, const struct statement *b)
{
    return a->from == b->from && a->below == b->below && kv_slice_equal(kv_buf_peek(&a->named), kv_buf_peek(&b->named));
}

static void write_forget(void *arg, struct kv_buf *buf)
{
    struct listener *listener = arg;
    const struct statement *now = &listener->forget->now;
    const uint64_t *ids = (const uint64_t *)(const void *)now->named.data;
    size_t count = now->named.bytes / sizeof *ids;
    listener->telling = listener->forget->version;
    kv_put_forget_begin(buf, now->from, now->below, count);
    for (size_t i = 0; i < count; i++)
        kv_pack_uint(buf, ids[i]);
}

static void on_told(void *arg, struct kv_slice body)
{
    struct listener *listener = arg;
    (void)body;
    listener->call = NULL;
    listener->told = listener->telling;
}

void forget_tick(struct forget *forget, uint64_t now_ms)
{
    if (forget->now.named.bytes == 0 || now_ms - forget->made_ms >= FORGET_NAMED_MS) {
        struct statement made = make_statement(forget->ids);
        forget->version += !is_same(&made, &forget->now);
        forget->made_ms = now_ms;
        kv_buf_free(&forget->now.named);
        forget->now = made;
    }
    for (unsigned i = 0; i < forget->shard_count; i++) {
        struct listener *listener = &forget->listeners[i];
        if (listener->call == NULL && listener->told != forget->version)
            listener->call = calls_send(forget->calls, i, KV_MSG_FORGET, true, write_forget, on_told, listener);
    }
}
