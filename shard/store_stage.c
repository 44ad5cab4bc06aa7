/* shard/store_stage.c -- content on its way in and out: staged pieces, and the ids of contents without an object row.
 * Does:     writes staged pieces; keeps the tables `staged` and `sweep`, rows of an id and its bytes.
 * Owns:     the one write transaction of the moment.
 * Promises: all of a call or nothing of it. An id is in exactly one place: an object row, `staged` or `sweep`, as long as
 *           it has rows in `blobs`.
 * Fails:    KV_NO_SPACE and the rest of store.h; the transaction is rolled back.
 * Tests:    unit/shard/test_store.c. */
#include "store_stage.h"

#include <errno.h>
#include <unistd.h>

#include "blobs.h"
#include "bytes.h"
#include "kv/log.h"
#include "rows.h"

#define PART_BYTES (32u * KV_BLOB_ROW_BYTES) /* of a file, read at a time */

/* ---- ids --------------------------------------------------------------------------------------------------------- */

enum kv_err store_ignore_missing(enum kv_err err)
{
    return err == KV_NOT_FOUND ? KV_OK : err;
}

enum kv_err store_put_id(struct store_txn *txn, enum store_table table, uint64_t object_id, uint64_t bytes)
{
    uint8_t id[8], value[8];
    bytes_put_u64(value, bytes);
    return txn_put(txn, table, row_encode_id(object_id, id), kv_slice(value, sizeof value));
}

static enum kv_err get_id(struct store_txn *txn, enum store_table table, uint64_t object_id, uint64_t *bytes)
{
    uint8_t id[8];
    struct kv_slice value;
    enum kv_err err = txn_get(txn, table, row_encode_id(object_id, id), &value);
    if (err == KV_OK && value.bytes != sizeof *bytes)
        err = KV_CORRUPT;
    if (err == KV_OK)
        *bytes = bytes_get_u64(value.data);
    return err;
}

enum kv_err store_delete_id(struct store_txn *txn, enum store_table table, uint64_t object_id)
{
    uint8_t id[8];
    return store_ignore_missing(txn_delete(txn, table, row_encode_id(object_id, id)));
}

enum kv_err store_unstage_id(struct store_txn *txn, uint64_t object_id)
{
    uint64_t bytes = 0;
    enum kv_err err = get_id(txn, STORE_STAGED, object_id, &bytes);
    if (err == KV_OK)
        err = store_delete_id(txn, STORE_STAGED, object_id);
    if (err == KV_OK && bytes > 0)
        err = store_put_id(txn, STORE_SWEEP, object_id, bytes);
    return store_ignore_missing(err);
}

enum kv_err store_end_large(struct store *store, struct store_txn **txn, enum kv_err err)
{
    if (err != KV_OK)
        return txn_end(txn, err);
    writeback_begin(store->writeback, txn_file(*txn));
    err = txn_commit(txn);
    writeback_end(store->writeback);
    return err;
}

/* ---- staged pieces ----------------------------------------------------------------------------------------------- */

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
    enum kv_err err = store_ignore_missing(get_id(writer->txn, STORE_STAGED, piece->object_id, &before));
    if (err == KV_OK)
        err = store_put_id(writer->txn, STORE_STAGED, piece->object_id, end > before ? end : before);
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
    err = store_end_large(store, &txn, err);
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
        err = store_unstage_id(txn, object_ids[i]);
    return txn_end(&txn, err);
}
