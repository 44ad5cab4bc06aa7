/* router/backend_load.c -- what a transaction wants to know under its locks: reference counts, by one REFS to each shard, and the
 * contents that GETs saw, a few at a time. */
#include "backend_internal.h"

#include <stdlib.h>

#include "kv/log.h"
#include "plan.h"
#include "wire/messages.h"

#define WINDOW 32u

struct counting {
    struct loader *loader;
    unsigned shard_index;
    struct call *call;
};

struct loading {
    struct loader *loader;
    struct plan_content *content; /* NULL: free */
    struct call *call;
    struct backend_call *fetch;
    struct kv_object object;
    struct backend_hold hold; /* with object.held */
    struct kv_buf stored;
};

struct loader {
    struct backend *backend;
    struct plan_content *contents;
    size_t count;
    size_t next; /* content to look at */
    unsigned waiting;
    struct counting counting[KV_SHARDS_MAX];
    struct loading loading[WINDOW];
    loader_on_loaded on_loaded;
    void *arg;
};

static void release(struct loading *loading)
{
    struct backend *backend = loading->loader->backend;
    if (loading->call != NULL)
        backend_abandon_open(backend, loading->call, &loading->content->hash);
    backend_cancel(loading->fetch);
    if (loading->content != NULL && loading->object.held)
        backend_close(backend, &loading->hold);
    kv_buf_free(&loading->stored);
    *loading = (struct loading){.loader = loading->loader};
}

void loader_cancel(struct loader *loader)
{
    if (loader == NULL)
        return;
    for (unsigned i = 0; i < KV_SHARDS_MAX; i++)
        calls_cancel(loader->backend->calls, loader->counting[i].call);
    for (unsigned i = 0; i < WINDOW; i++)
        release(&loader->loading[i]);
    free(loader);
}

static void loader_end(struct loader *loader, enum kv_err err)
{
    loader_on_loaded on_loaded = loader->on_loaded;
    void *arg = loader->arg;
    loader_cancel(loader);
    on_loaded(arg, err);
}

/* ---- contents ------------------------------------------------------------------------------------------------- */

static void load_more(struct loader *loader);
static void ask_piece(struct loading *loading);

static void decode(struct loading *loading)
{
    struct loader *loader = loading->loader;
    struct plan_content *content = loading->content;
    enum kv_err err =
        codec_decode(loader->backend->codec, kv_buf_peek(&loading->stored), content->size, &content->content);
    release(loading);
    loader->waiting--;
    if (err != KV_OK)
        loader_end(loader, err);
    else
        load_more(loader);
}

static void on_piece(void *arg, enum kv_err err, struct kv_slice bytes, struct arena_slot *slot)
{
    (void)slot;
    struct loading *loading = arg;
    loading->fetch = NULL;
    if (err != KV_OK) {
        loader_end(loading->loader, err);
        return;
    }
    kv_buf_append(&loading->stored, bytes);
    ask_piece(loading);
}

static void ask_piece(struct loading *loading)
{
    uint64_t left = loading->object.stored_bytes - loading->stored.bytes;
    if (left == 0) {
        decode(loading);
        return;
    }
    loading->fetch = backend_fetch(loading->loader->backend, &loading->hold, loading->stored.bytes,
                                   left < KV_PIECE_BYTES_MAX ? left : KV_PIECE_BYTES_MAX, on_piece, loading);
}

static void on_object(void *arg, struct kv_slice body)
{
    struct loading *loading = arg;
    loading->call = NULL;
    struct kv_msg_object object;
    enum kv_err err = kv_get_object(body, &object);
    kv_assert(err == KV_OK);
    if (object.err != KV_OK) {
        loader_end(loading->loader, object.err == KV_NOT_FOUND ? KV_CONFLICT : object.err);
        return;
    }
    loading->object = object.object;
    loading->hold = backend_hold_now(loading->loader->backend, &loading->content->hash, object.object.object_id);
    kv_buf_append(&loading->stored, object.object.bytes);
    ask_piece(loading);
}

static void write_open(void *arg, struct kv_buf *buf)
{
    const struct loading *loading = arg;
    kv_put_open(buf, &(struct kv_msg_open){loading->content->hash, KV_PIECE_BYTES_MAX});
}

static void load(struct loading *loading, struct plan_content *content)
{
    struct loader *loader = loading->loader;
    loading->content = content;
    loader->waiting++;
    loading->call = calls_send(loader->backend->calls, backend_shard_of(loader->backend, &content->hash), KV_MSG_OPEN,
                               true, write_open, on_object, loading);
}

/* A content that the batch itself brought is decoded from what it brought. */
static enum kv_err decode_given(struct loader *loader, struct plan_content *content)
{
    return codec_decode(loader->backend->codec, content->given->stored, content->size, &content->content);
}

static void load_more(struct loader *loader)
{
    for (unsigned i = 0; i < WINDOW && loader->next < loader->count; i++) {
        if (loader->loading[i].content != NULL)
            continue;
        while (loader->next < loader->count && !loader->contents[loader->next].want_bytes)
            loader->next++;
        if (loader->next == loader->count)
            break;
        struct plan_content *content = &loader->contents[loader->next++];
        if (content->given == NULL) {
            load(&loader->loading[i], content);
        } else if (decode_given(loader, content) != KV_OK) {
            loader_end(loader, KV_CORRUPT);
            return;
        }
    }
    if (loader->waiting > 0)
        return;
    if (loader->next < loader->count)
        load_more(loader);
    else
        loader_end(loader, KV_OK);
}

/* ---- reference counts ----------------------------------------------------------------------------------------- */

static bool is_counted(const struct counting *counting, const struct plan_content *content)
{
    return content->want_refs && backend_shard_of(counting->loader->backend, &content->hash) == counting->shard_index;
}

static void write_refs(void *arg, struct kv_buf *buf)
{
    const struct counting *counting = arg;
    const struct loader *loader = counting->loader;
    size_t count = 0;
    for (size_t i = 0; i < loader->count; i++)
        count += is_counted(counting, &loader->contents[i]);
    kv_put_refs_begin(buf, count);
    for (size_t i = 0; i < loader->count; i++) {
        if (is_counted(counting, &loader->contents[i]))
            kv_put_hash(buf, &loader->contents[i].hash);
    }
}

static void on_counts(void *arg, struct kv_slice body)
{
    struct counting *counting = arg;
    struct loader *loader = counting->loader;
    counting->call = NULL;
    enum kv_err err;
    struct kv_list numbers;
    enum kv_err decoded = kv_get_counts(body, &err, &numbers);
    kv_assert(decoded == KV_OK && err == KV_OK);
    for (size_t i = 0; i < loader->count; i++) {
        if (is_counted(counting, &loader->contents[i]))
            kv_next_uint(&numbers, &loader->contents[i].refs);
    }
    if (--loader->waiting == 0)
        load_more(loader);
}

struct loader *loader_new(struct backend *backend, struct plan *plan, loader_on_loaded on_loaded, void *arg)
{
    size_t count;
    struct plan_content *contents = plan_contents(plan, &count);
    kv_shard_set shards = 0;
    for (size_t i = 0; i < count; i++) {
        if (contents[i].want_refs)
            shards |= kv_shard_bit(backend_shard_of(backend, &contents[i].hash));
    }
    if (shards == 0)
        return NULL;
    struct loader *loader = kv_alloc_zero(1, sizeof *loader);
    loader->backend = backend;
    loader->contents = contents;
    loader->count = count;
    loader->on_loaded = on_loaded;
    loader->arg = arg;
    for (unsigned i = 0; i < WINDOW; i++)
        loader->loading[i].loader = loader;
    for (unsigned i = 0; i < backend->shard_count; i++) {
        loader->counting[i] = (struct counting){loader, i, NULL};
        if ((shards & kv_shard_bit(i)) == 0)
            continue;
        loader->waiting++;
        loader->counting[i].call =
            calls_send(backend->calls, i, KV_MSG_REFS, true, write_refs, on_counts, &loader->counting[i]);
    }
    return loader;
}
