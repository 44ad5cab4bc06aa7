/* router/backend_refs.c -- how many keys refer to each of some contents: one REFS to each shard that has some of them. */
#include "backend_internal.h"

#include <stdlib.h>

#include "kv/log.h"
#include "wire/messages.h"

struct wanted {
    const struct kv_hash *hash;
    unsigned shard_index;
    uint64_t *out;
};

struct counting {
    struct refs *refs;
    unsigned shard_index;
    size_t count; /* of the contents wanted */
    struct call *call;
};

struct refs {
    struct backend *backend;
    unsigned waiting;
    struct counting counting[KV_SHARDS_MAX];
    refs_on_counted on_counted;
    void *arg;
    size_t count;
    struct wanted wanted[];
};

struct refs *refs_new(struct backend *backend, size_t count_max, refs_on_counted on_counted, void *arg)
{
    struct refs *refs = kv_alloc_zero(1, sizeof *refs + count_max * sizeof *refs->wanted);
    refs->backend = backend;
    refs->on_counted = on_counted;
    refs->arg = arg;
    for (unsigned i = 0; i < backend->shard_count; i++)
        refs->counting[i] = (struct counting){.refs = refs, .shard_index = i};
    return refs;
}

void refs_add(struct refs *refs, const struct kv_hash *hash, uint64_t *out)
{
    unsigned shard_index = backend_shard_of(refs->backend, hash);
    refs->wanted[refs->count++] = (struct wanted){hash, shard_index, out};
    refs->counting[shard_index].count++;
}

static void write_refs(void *arg, struct kv_buf *buf)
{
    const struct counting *counting = arg;
    const struct refs *refs = counting->refs;
    kv_put_refs_begin(buf, counting->count);
    for (size_t i = 0; i < refs->count; i++) {
        if (refs->wanted[i].shard_index == counting->shard_index)
            kv_put_hash(buf, refs->wanted[i].hash);
    }
}

static void on_counts(void *arg, struct kv_slice body)
{
    struct counting *counting = arg;
    struct refs *refs = counting->refs;
    counting->call = NULL;
    enum kv_err err;
    struct kv_list numbers;
    enum kv_err decoded = kv_get_counts(body, &err, &numbers);
    kv_assert(decoded == KV_OK && err == KV_OK);
    for (size_t i = 0; i < refs->count; i++) {
        if (refs->wanted[i].shard_index == counting->shard_index)
            kv_next_uint(&numbers, refs->wanted[i].out);
    }
    if (--refs->waiting == 0)
        refs->on_counted(refs->arg);
}

bool refs_ask(struct refs *refs)
{
    for (unsigned i = 0; i < refs->backend->shard_count; i++) {
        struct counting *counting = &refs->counting[i];
        if (counting->count == 0)
            continue;
        refs->waiting++;
        counting->call = calls_send(refs->backend->calls, i, KV_MSG_REFS, true, write_refs, on_counts, counting);
    }
    return refs->waiting > 0;
}

void refs_free(struct refs **refs)
{
    struct refs *old = *refs;
    if (old == NULL)
        return;
    for (unsigned i = 0; i < old->backend->shard_count; i++)
        calls_cancel(old->backend->calls, old->counting[i].call);
    free(old);
    *refs = NULL;
}
