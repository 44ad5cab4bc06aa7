/* shard/blobs.h -- stored forms in rows of one LMDB page: table `blobs`, `object id 8 BE || row number 4 BE`.
 * Does:     splits, puts together and deletes. All rows of an object but the last have KV_BLOB_ROW_BYTES (larger ones would
 *           need runs of free pages, which LMDB looks for one after the other); a stored form of 0 bytes has no rows.
 * Owns:     the table blobs, inside the caller's transaction.
 * Fails:    KV_CORRUPT when a row is missing or has another length than it should; what the transaction said.
 * Tests:    unit/shard/test_store.c. */
#ifndef KV_SHARD_BLOBS_H
#define KV_SHARD_BLOBS_H

#include "store_internal.h"

/* Appends `bytes` of the stored form from `offset`. On error `out` is as it was. */
enum kv_err blobs_read(struct store_txn *txn, uint64_t object_id, uint64_t offset, uint64_t bytes, struct kv_buf *out);

/* For writing many objects in the order of their ids: what lies behind the last row of the table is appended. */
struct blobs_writer {
    struct store_txn *txn;
    uint64_t last_id; /* the last row of the table; id 0: there is none */
    uint64_t last_row;
};
enum kv_err blobs_writer_init(struct store_txn *txn, struct blobs_writer *out);
/* `offset` is a multiple of KV_BLOB_ROW_BYTES; `bytes` too, unless the stored form ends there. */
enum kv_err blobs_write(struct blobs_writer *writer, uint64_t object_id, uint64_t offset, struct kv_slice bytes);

/* Deletes rows of one object while *rows_left lasts, from the first that is there. KV_OK: all are gone; KV_OVERLOADED: some
 * are left, *rows_left is 0. */
enum kv_err blobs_delete(struct store_txn *txn, uint64_t object_id, size_t *rows_left);

/* Splits the key of a row; false for another length. */
bool blobs_split_key(struct kv_slice key, uint64_t *object_id, uint32_t *row);

#endif
