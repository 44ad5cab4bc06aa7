/* router/backend_load.c -- what a transaction wants to know under its locks: reference counts, and the contents that GETs saw, a few at a
 * time. */
#include "backend_internal.h"

#include <stdlib.h>

#include "kv/log.h"
#include "plan.h"
#include "wire/messages.h"

#define WINDOW 32u

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
    struct refs *refs;
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
    refs_free(&loader->refs);
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
    kv_put_open(buf, &(struct kv_msg_open){.hash = loading->content->hash, .bytes_max = KV_PIECE_BYTES_MAX});
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

static void on_counted(void *arg)
{
    struct loader *loader = arg;
    refs_free(&loader->refs);
    load_more(loader);
}

struct loader *loader_new(struct backend *backend, struct plan *plan, loader_on_loaded on_loaded, void *arg)
{
    size_t count, wanted = 0;
    struct plan_content *contents = plan_contents(plan, &count);
    for (size_t i = 0; i < count; i++)
        wanted += contents[i].want_refs;
    if (wanted == 0)
        return NULL;
    struct loader *loader = kv_alloc_zero(1, sizeof *loader);
    loader->backend = backend;
    loader->contents = contents;
    loader->count = count;
    loader->on_loaded = on_loaded;
    loader->arg = arg;
    for (unsigned i = 0; i < WINDOW; i++)
        loader->loading[i].loader = loader;
    loader->refs = refs_new(backend, wanted, on_counted, loader);
    for (size_t i = 0; i < count; i++) {
        if (contents[i].want_refs)
            refs_add(loader->refs, &contents[i].hash, &contents[i].refs);
    }
    refs_ask(loader->refs);
    return loader;
}
