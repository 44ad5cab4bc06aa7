/* shard/store_read.c -- the loop thread's reads, all within store_read_begin and store_read_end.
 * Does:     single rows, stored bytes, the walk over keys, meta.
 * Owns:     nothing; results are peeks into the snapshot.
 * Promises: the walk keeps its place whatever else is read in between.
 * Tests:    unit/shard/test_store.c, unit/shard/test_longkey.c. */
#include <stdio.h>

#include "blobs.h"
#include "kv/log.h"
#include "rows.h"
#include "store_meta.h"
#include "store_redo.h"

#define TRIM_EVERY_BYTES (32u << 20) /* of large contents read */

enum kv_err store_get_key(struct store *store, struct kv_slice key, struct kv_slice *row)
{
    kv_assert(store->reading);
    if (key.bytes == 0 || key.bytes > KV_KEY_BYTES_MAX)
        return KV_NOT_FOUND;
    if (store_filter_lacks(&store->filter, STORE_FILTER_KEYS, key))
        return KV_NOT_FOUND;
    return store_filter_asked(&store->filter, longkey_get(store->reader, key, row));
}

enum kv_err store_get_object(struct store *store, const struct kv_hash *hash, struct kv_slice *row)
{
    kv_assert(store->reading);
    struct kv_slice key = kv_hash_slice(hash);
    if (store_filter_lacks(&store->filter, STORE_FILTER_OBJECTS, key))
        return KV_NOT_FOUND;
    return store_filter_asked(&store->filter, txn_get(store->reader, STORE_OBJECTS, key, row));
}

enum kv_err store_get_blob(struct store *store, uint64_t object_id, uint64_t offset, uint64_t bytes, struct kv_buf *out)
{
    kv_assert(store->reading);
    enum kv_err err = blobs_read(store->reader, object_id, offset, bytes, out);
    if (bytes > KV_INLINE_BYTES_MAX) /* the pages of small ones are wanted again, and cost a GET a tenth to map */
        store->blob_bytes_read += bytes;
    if (store->blob_bytes_read > TRIM_EVERY_BYTES) {
        store->blob_bytes_read = 0;
        store_trim(store, STORE_RESIDENT_BYTES_MAX);
    }
    return err;
}

static enum kv_err give_key(struct store *store, enum kv_err err, struct kv_buf *key)
{
    if (err != KV_OK)
        return err;
    key->bytes = 0;
    kv_buf_append(key, kv_slice(store->walk.key, store->walk.key_bytes));
    return KV_OK;
}

enum kv_err store_seek_key(struct store *store, struct kv_slice from, struct kv_buf *key, struct kv_slice *row)
{
    kv_assert(store->reading);
    return give_key(store, longkey_seek(store->reader, &store->walk, from, row), key);
}

enum kv_err store_next_key(struct store *store, struct kv_buf *key, struct kv_slice *row)
{
    kv_assert(store->reading);
    return give_key(store, longkey_next(store->reader, &store->walk, row), key);
}

/* Ids of uploads are given out without a journal record, so after a crash the meta row may not know of them. A new content must
 * not get the id under which rows of a broken upload still wait to be swept: the sweep would take its rows, too. */
static enum kv_err raise_object_id(struct store_txn *txn, uint64_t *object_id_next)
{
    static const enum store_table tables[] = {STORE_BLOBS, STORE_SWEEP, STORE_STAGED};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        struct kv_slice key, value;
        enum kv_err err = txn_last(txn, tables[i], &key, &value);
        if (err == KV_NOT_FOUND)
            continue;
        if (err != KV_OK || key.bytes < 8)
            return err != KV_OK ? err : KV_CORRUPT;
        uint64_t id = row_decode_id(kv_slice(key.data, 8));
        if (id >= *object_id_next)
            *object_id_next = id + 1;
    }
    return KV_OK;
}

enum kv_err store_get_meta(struct store *store, struct store_meta *out, struct kv_buf *intents_out)
{
    kv_assert(store->reading);
    uint64_t node_id_next;
    struct store_meta meta;
    enum kv_err err = store_meta_get(store->reader, &meta, &node_id_next);
    if (err == KV_OK)
        err = raise_object_id(store->reader, &meta.object_id_next);
    if (err != KV_OK)
        return err;
    intents_out->bytes = 0;
    kv_buf_append(intents_out, meta.intents);
    meta.intents = kv_buf_peek(intents_out);
    *out = meta;
    return KV_OK;
}

enum kv_err store_get_redo(struct store *store, char *why, size_t why_bytes, struct store_redo *out)
{
    kv_assert(store->reading);
    uint64_t position = 0;
    enum kv_err err = store_meta_half(store->reader, &position);
    if (err != KV_OK)
        snprintf(why, why_bytes, "cannot read what data.mdb says of redo: %s", kv_err_text(err));
    if (err == KV_OK && position == 0)
        err = KV_NOT_FOUND;
    if (err == KV_OK)
        err = redo_read(store->path, &store->identity, position, why, why_bytes, out);
    if (err == KV_OK)
        store->redo_position = position;
    return err;
}

enum kv_err store_get_staged(struct store *store, struct kv_buf *ids)
{
    kv_assert(store->reading);
    struct kv_slice key, value;
    enum kv_err err = txn_seek(store->reader, STORE_STAGED, kv_slice(NULL, 0), &key, &value);
    for (; err == KV_OK; err = txn_next(store->reader, STORE_STAGED, &key, &value)) {
        if (key.bytes != 8)
            return KV_CORRUPT;
        uint64_t id = row_decode_id(key);
        kv_buf_append(ids, kv_slice(&id, sizeof id));
    }
    return err == KV_NOT_FOUND ? KV_OK : err;
}
