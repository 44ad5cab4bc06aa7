/* shard/store_apply.c -- the applier's transactions: a generation, staged pieces, the sweep of deleted content.
 * Does:     writes each table in key order, so that a page is touched once; moves the ids of content that nothing refers to any
 *           more into `sweep` and deletes its rows in id order, some at a time.
 * Owns:     the one write transaction of the moment.
 * Promises: all of a call or nothing of it. An id is in exactly one place: an object row, `staged` or `sweep`, as long as
 *           it has rows in `blobs`. Pinned ids (readers hold them) stay in `sweep` with all their rows.
 * Fails:    KV_NO_SPACE and the rest of store.h; the transaction is rolled back.
 * Tests:    unit/shard/test_store.c. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "blobs.h"
#include "kv/log.h"
#include "rows.h"
#include "store_meta.h"

#define PART_BYTES (32u * KV_BLOB_ROW_BYTES) /* of a file, read at a time */
#define SWEEP_ROWS_LOW 16u                   /* in one transaction, when the map is nearly full */

static enum kv_err ignore_missing(enum kv_err err)
{
    return err == KV_NOT_FOUND ? KV_OK : err;
}

static enum kv_err put_amount(struct store_txn *txn, enum store_table table, uint64_t object_id, uint64_t bytes)
{
    uint8_t id[8];
    uint64_t little = htole64(bytes);
    return txn_put(txn, table, row_encode_id(object_id, id), kv_slice(&little, sizeof little));
}

static enum kv_err get_amount(struct store_txn *txn, enum store_table table, uint64_t object_id, uint64_t *bytes)
{
    uint8_t id[8];
    uint64_t little;
    struct kv_slice value;
    enum kv_err err = txn_get(txn, table, row_encode_id(object_id, id), &value);
    if (err == KV_OK && value.bytes != sizeof little)
        err = KV_CORRUPT;
    if (err != KV_OK)
        return err;
    memcpy(&little, value.data, sizeof little);
    *bytes = le64toh(little);
    return KV_OK;
}

static enum kv_err delete_id(struct store_txn *txn, enum store_table table, uint64_t object_id)
{
    uint8_t id[8];
    return ignore_missing(txn_delete(txn, table, row_encode_id(object_id, id)));
}

/* An id that is not in `staged` was adopted, or never written: not ours to sweep. */
static enum kv_err unstage(struct store_txn *txn, uint64_t object_id)
{
    uint64_t bytes = 0;
    enum kv_err err = get_amount(txn, STORE_STAGED, object_id, &bytes);
    if (err == KV_OK)
        err = delete_id(txn, STORE_STAGED, object_id);
    if (err == KV_OK && bytes > 0)
        err = put_amount(txn, STORE_SWEEP, object_id, bytes);
    return ignore_missing(err);
}

/* As txn_end, for as many pages as a generation has. */
static enum kv_err end_large(struct store *store, struct store_txn **txn, enum kv_err err)
{
    if (err != KV_OK)
        return txn_end(txn, err);
    writeback_begin(store->writeback, txn_file(*txn));
    err = txn_commit(txn);
    writeback_end(store->writeback);
    return err;
}

/* ---- a generation ------------------------------------------------------------------------------------------------ */

struct apply {
    struct store_txn *txn;
    struct store_filter *filter;
    uint64_t node_id_next;
    struct blobs_writer blobs;
};

static enum kv_err apply_key(struct apply *apply, const struct overlay_row *row)
{
    if (row->tombstone)
        return ignore_missing(longkey_delete(apply->txn, row->key));
    store_filter_add(apply->filter, STORE_FILTER_KEYS, row->key);
    return longkey_put(apply->txn, row->key, row->value, &apply->node_id_next);
}

/* What the table holds now; object_id 0 when that is nothing, or has its bytes with it. */
static enum kv_err old_object(struct apply *apply, struct kv_slice hash, struct kv_object *out)
{
    struct kv_slice value;
    *out = (struct kv_object){0};
    if (store_filter_is_new(apply->filter, STORE_FILTER_OBJECTS, hash))
        return KV_OK;
    enum kv_err err = txn_get(apply->txn, STORE_OBJECTS, hash, &value);
    return err == KV_OK ? row_decode_object(value, out) : ignore_missing(err);
}

static enum kv_err apply_object(struct apply *apply, const struct overlay_row *row)
{
    struct kv_object old, now = {0};
    enum kv_err err = old_object(apply, row->key, &old);
    if (err == KV_OK && !row->tombstone)
        err = row_decode_object(row->value, &now);
    if (err == KV_OK && old.object_id != 0 && old.object_id != now.object_id && old.stored_bytes > 0)
        err = put_amount(apply->txn, STORE_SWEEP, old.object_id, old.stored_bytes);
    if (err != KV_OK)
        return err;
    if (row->tombstone)
        return ignore_missing(txn_delete(apply->txn, STORE_OBJECTS, row->key));
    store_filter_add(apply->filter, STORE_FILTER_OBJECTS, row->key);
    err = txn_put(apply->txn, STORE_OBJECTS, row->key, row->value);
    bool adopts = now.object_id != 0 && now.object_id != old.object_id;
    return err == KV_OK && adopts ? delete_id(apply->txn, STORE_STAGED, now.object_id) : err;
}

/* A tombstone is the end of a large content that no applied object row ever named: its rows are staged still, and may be held
 * by a reader, so they go to the sweep like all others. */
static enum kv_err apply_blob(struct apply *apply, const struct overlay_row *row)
{
    uint64_t object_id = row_decode_id(row->key);
    if (row->tombstone)
        return unstage(apply->txn, object_id);
    return blobs_write(&apply->blobs, object_id, 0, row->value);
}

static enum kv_err apply_table(struct apply *apply, const struct overlay *generation, enum overlay_table table,
                               enum kv_err (*apply_row)(struct apply *, const struct overlay_row *))
{
    size_t count;
    const struct overlay_row **rows = overlay_sorted(generation, table, &count);
    enum kv_err err = KV_OK;
    for (size_t i = 0; i < count && err == KV_OK; i++)
        err = apply_row(apply, rows[i]);
    free((void *)rows);
    return err;
}

static enum kv_err apply_tables(struct apply *apply, const struct overlay *generation)
{
    struct store_meta before;
    enum kv_err err = store_meta_get(apply->txn, &before, &apply->node_id_next);
    if (err == KV_OK)
        err = blobs_writer_init(apply->txn, &apply->blobs);
    if (err == KV_OK)
        err = apply_table(apply, generation, OVERLAY_KEYS, apply_key);
    if (err == KV_OK)
        err = apply_table(apply, generation, OVERLAY_OBJECTS, apply_object);
    if (err == KV_OK)
        err = apply_table(apply, generation, OVERLAY_BLOBS, apply_blob);
    return err;
}

/* ---- the sweep --------------------------------------------------------------------------------------------------- */

static bool is_pinned(uint64_t object_id, const uint64_t *pinned, size_t count)
{
    size_t low = 0;
    while (low < count) {
        size_t middle = low + (count - low) / 2;
        if (pinned[middle] == object_id)
            return true;
        if (pinned[middle] < object_id)
            low = middle + 1;
        else
            count = middle;
    }
    return false;
}

/* The next id of `sweep` from `from` on that nobody holds. */
static enum kv_err next_to_sweep(struct store_txn *txn, uint64_t from, const uint64_t *pinned, size_t pinned_count,
                                 uint64_t *object_id)
{
    uint8_t id[8];
    struct kv_slice key, value;
    enum kv_err err = txn_seek(txn, STORE_SWEEP, row_encode_id(from, id), &key, &value);
    for (; err == KV_OK; err = txn_next(txn, STORE_SWEEP, &key, &value)) {
        if (key.bytes != 8)
            return KV_CORRUPT;
        *object_id = row_decode_id(key);
        if (!is_pinned(*object_id, pinned, pinned_count))
            return KV_OK;
    }
    return err;
}

/* `*swept` tells whether anything was there to do. */
static enum kv_err sweep(struct store_txn *txn, const uint64_t *pinned, size_t pinned_count, size_t rows_max,
                         bool *swept)
{
    uint64_t object_id = 0;
    enum kv_err err = next_to_sweep(txn, 0, pinned, pinned_count, &object_id);
    *swept = err == KV_OK;
    while (err == KV_OK && rows_max > 0) {
        err = blobs_delete(txn, object_id, &rows_max);
        if (err == KV_OVERLOADED)
            return KV_OK; /* enough for one transaction: the rest of this object comes next time */
        if (err == KV_OK)
            err = delete_id(txn, STORE_SWEEP, object_id);
        if (err == KV_OK)
            err = next_to_sweep(txn, object_id + 1, pinned, pinned_count, &object_id);
    }
    return ignore_missing(err);
}

/* ---- transactions ------------------------------------------------------------------------------------------------ */

/* Rows, position and sweep are one transaction: after a crash, replay begins exactly behind what is here. */
static enum kv_err apply_once(struct store *store, const struct overlay *generation, const struct store_meta *meta,
                              const uint64_t *pinned, size_t pinned_count, size_t sweep_rows_max)
{
    struct apply apply = {.filter = &store->filter};
    bool swept;
    enum kv_err err = txn_begin_write(store->env, &apply.txn);
    if (err != KV_OK)
        return err;
    err = apply_tables(&apply, generation);
    if (err == KV_OK && sweep_rows_max > 0)
        err = sweep(apply.txn, pinned, pinned_count, sweep_rows_max, &swept);
    if (err == KV_OK)
        err = store_meta_put(apply.txn, meta, apply.node_id_next);
    return end_large(store, &apply.txn, err);
}

/* Deleting rows needs pages, too: on the last ones, the generation alone may fit where generation and sweep do not. */
enum kv_err store_apply(struct store *store, const struct overlay *generation, const struct store_meta *meta,
                        const uint64_t *pinned, size_t pinned_count, size_t sweep_rows_max)
{
    enum kv_err err = apply_once(store, generation, meta, pinned, pinned_count, sweep_rows_max);
    if (err == KV_NO_SPACE && sweep_rows_max > 0)
        err = apply_once(store, generation, meta, pinned, pinned_count, 0);
    return err;
}

static enum kv_err sweep_once(struct store *store, const uint64_t *pinned, size_t pinned_count, size_t sweep_rows_max)
{
    struct store_txn *txn = NULL;
    bool swept = false;
    enum kv_err err = txn_begin_write(store->env, &txn);
    if (err != KV_OK)
        return err;
    err = sweep(txn, pinned, pinned_count, sweep_rows_max, &swept);
    if (err == KV_OK && !swept)
        err = KV_NOT_FOUND;
    return txn_end(&txn, err);
}

/* As in store_apply: where many rows do not fit any more, a few do, and set pages free for the next call. */
enum kv_err store_sweep(struct store *store, const uint64_t *pinned, size_t pinned_count, size_t sweep_rows_max)
{
    enum kv_err err = sweep_once(store, pinned, pinned_count, sweep_rows_max);
    if (err == KV_NO_SPACE && sweep_rows_max > SWEEP_ROWS_LOW)
        err = sweep_once(store, pinned, pinned_count, SWEEP_ROWS_LOW);
    return err;
}

static enum kv_err read_file(int fd, uint64_t offset, uint8_t *out, size_t bytes)
{
    while (bytes > 0) {
        ssize_t got = pread(fd, out, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return KV_INVALID;
        out += got;
        offset += (uint64_t)got;
        bytes -= (size_t)got;
    }
    return KV_OK;
}

/* Part [at, at + bytes) of a piece: its own bytes, then those of its file. */
static enum kv_err read_piece(const struct store_piece *piece, uint64_t at, uint8_t *out, size_t bytes)
{
    size_t share = 0;
    if (at < piece->bytes.bytes) {
        share = piece->bytes.bytes - at < bytes ? piece->bytes.bytes - at : bytes;
        memcpy(out, piece->bytes.data + at, share);
    }
    uint64_t file_at = piece->file.offset + (at + share - piece->bytes.bytes);
    return read_file(piece->file.fd, file_at, out + share, bytes - share);
}

/* By parts that stay in the processor's cache from the read to the page. */
static enum kv_err write_from_file(struct blobs_writer *writer, const struct store_piece *piece)
{
    static __thread uint8_t part[PART_BYTES];
    uint64_t piece_bytes = store_piece_bytes(piece);
    enum kv_err err = KV_OK;
    for (uint64_t at = 0; at < piece_bytes && err == KV_OK; at += PART_BYTES) {
        size_t bytes = piece_bytes - at < PART_BYTES ? (size_t)(piece_bytes - at) : PART_BYTES;
        err = read_piece(piece, at, part, bytes);
        if (err == KV_OK)
            err = blobs_write(writer, piece->object_id, piece->offset + at, kv_slice(part, bytes));
    }
    return err;
}

static enum kv_err stage_piece(struct blobs_writer *writer, const struct store_piece *piece)
{
    uint64_t end = piece->offset + store_piece_bytes(piece), before = 0;
    enum kv_err err = ignore_missing(get_amount(writer->txn, STORE_STAGED, piece->object_id, &before));
    if (err == KV_OK)
        err = put_amount(writer->txn, STORE_STAGED, piece->object_id, end > before ? end : before);
    if (err != KV_OK)
        return err;
    return piece->file.bytes > 0 ? write_from_file(writer, piece)
                                 : blobs_write(writer, piece->object_id, piece->offset, piece->bytes);
}

enum kv_err store_stage(struct store *store, const struct store_piece *pieces, size_t count)
{
    struct blobs_writer writer = {0};
    struct store_txn *txn = NULL;
    enum kv_err err = txn_begin_write(store->env, &txn);
    if (err != KV_OK)
        return err;
    err = blobs_writer_init(txn, &writer);
    for (size_t i = 0; i < count && err == KV_OK; i++)
        err = stage_piece(&writer, &pieces[i]);
    err = end_large(store, &txn, err);
    store_trim(store, STORE_RESIDENT_BYTES_MAX);
    return err;
}

enum kv_err store_unstage(struct store *store, const uint64_t *object_ids, size_t count)
{
    struct store_txn *txn = NULL;
    enum kv_err err = txn_begin_write(store->env, &txn);
    if (err != KV_OK)
        return err;
    for (size_t i = 0; i < count && err == KV_OK; i++)
        err = unstage(txn, object_ids[i]);
    return txn_end(&txn, err);
}
