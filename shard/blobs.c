/* shard/blobs.c -- see blobs.h. */
#include "blobs.h"

#include <endian.h>

#include "kv/log.h"
#include "rows.h"

#define KEY_BYTES 12u
#define AHEAD_BYTES 1024u /* then the processor has seen where it goes on */
#define LINE_BYTES 64u
/* What is read at once beyond it is a part of a large content: its pages leave. */
#define KEPT_BYTES_MAX KV_INLINE_BYTES_MAX

static struct kv_slice key_of(uint64_t object_id, uint64_t row, uint8_t space[KEY_BYTES])
{
    uint32_t big = htobe32((uint32_t)row);
    kv_assert(row <= UINT32_MAX);
    row_encode_id(object_id, space);
    memcpy(space + 8, &big, sizeof big);
    return kv_slice(space, KEY_BYTES);
}

bool blobs_split_key(struct kv_slice key, uint64_t *object_id, uint32_t *row)
{
    uint32_t big;
    if (key.bytes != KEY_BYTES)
        return false;
    memcpy(&big, key.data + 8, sizeof big);
    *object_id = row_decode_id(kv_slice(key.data, 8));
    *row = be32toh(big);
    return true;
}

/* Rows that were written together lie on pages that follow each other, and the processor looks ahead no further than the end of a page:
 * without a hint each row begins with a wait for memory, two thirds of a copy. There may be no such page: that does no harm. */
static void fetch_ahead(struct kv_slice row)
{
    const uint8_t *next = row.data + LMDB_PAGE_BYTES;
    for (size_t at = 0; at < AHEAD_BYTES; at += LINE_BYTES)
        __builtin_prefetch(next + at);
}

/* One row's share: from `skip` within it, at most `bytes`. All that is asked must be there. */
static enum kv_err take_share(struct kv_slice row, uint64_t skip, uint64_t bytes, struct kv_buf *out)
{
    uint64_t share = KV_BLOB_ROW_BYTES - skip < bytes ? KV_BLOB_ROW_BYTES - skip : bytes;
    if (row.bytes > KV_BLOB_ROW_BYTES || row.bytes < skip + share)
        return KV_CORRUPT;
    if (bytes > share)
        fetch_ahead(row);
    kv_buf_append(out, kv_slice(row.data + skip, share));
    return KV_OK;
}

/* Rows that follow each other lie on pages that follow each other, mostly: their pages leave in runs. */
struct run {
    const uint8_t *begin;
    const uint8_t *end;
};

static void leave(struct store_txn *txn, struct run *run)
{
    if (run->begin != NULL)
        txn_leave(txn, run->begin, (size_t)(run->end - run->begin));
    run->begin = NULL;
}

static void leave_row(struct store_txn *txn, struct run *run, struct kv_slice row)
{
    bool follows = run->begin != NULL && row.data >= run->end && row.data < run->end + 2 * KV_BLOB_ROW_BYTES;
    if (!follows) {
        leave(txn, run);
        run->begin = row.data;
    }
    run->end = row.data + row.bytes;
}

enum kv_err blobs_read(struct store_txn *txn, uint64_t object_id, uint64_t offset, uint64_t bytes, struct kv_buf *out)
{
    struct run run = {NULL, NULL};
    uint8_t space[KEY_BYTES];
    struct kv_slice key, value;
    size_t before = out->bytes, end = before + bytes;
    uint64_t number = offset / KV_BLOB_ROW_BYTES, skip = offset % KV_BLOB_ROW_BYTES;
    if (bytes == 0)
        return KV_OK;
    enum kv_err err = txn_seek(txn, STORE_BLOBS, key_of(object_id, number, space), &key, &value);
    while (err == KV_OK) {
        if (!kv_slice_equal(key, key_of(object_id, number, space)))
            err = KV_CORRUPT;
        if (err == KV_OK)
            err = take_share(value, skip, end - out->bytes, out);
        if (err == KV_OK && bytes > KEPT_BYTES_MAX)
            leave_row(txn, &run, value);
        if (err != KV_OK || out->bytes == end)
            break;
        skip = 0;
        number++;
        err = txn_next(txn, STORE_BLOBS, &key, &value);
    }
    leave(txn, &run);
    if (err != KV_OK)
        out->bytes = before;
    return err == KV_NOT_FOUND ? KV_CORRUPT : err;
}

enum kv_err blobs_writer_init(struct store_txn *txn, struct blobs_writer *out)
{
    struct kv_slice key, value;
    uint32_t row;
    *out = (struct blobs_writer){.txn = txn};
    enum kv_err err = txn_last(txn, STORE_BLOBS, &key, &value);
    if (err == KV_OK && !blobs_split_key(key, &out->last_id, &row))
        err = KV_CORRUPT;
    if (err == KV_OK)
        out->last_row = row;
    return err == KV_NOT_FOUND ? KV_OK : err;
}

static enum kv_err write_row(struct blobs_writer *writer, uint64_t object_id, uint64_t number, struct kv_slice bytes)
{
    uint8_t space[KEY_BYTES];
    struct kv_slice key = key_of(object_id, number, space);
    if (object_id < writer->last_id || (object_id == writer->last_id && number <= writer->last_row))
        return txn_put(writer->txn, STORE_BLOBS, key, bytes);
    writer->last_id = object_id;
    writer->last_row = number;
    return txn_append(writer->txn, STORE_BLOBS, key, bytes);
}

enum kv_err blobs_write(struct blobs_writer *writer, uint64_t object_id, uint64_t offset, struct kv_slice bytes)
{
    kv_assert(offset % KV_BLOB_ROW_BYTES == 0);
    enum kv_err err = KV_OK;
    for (uint64_t number = offset / KV_BLOB_ROW_BYTES; bytes.bytes > 0 && err == KV_OK; number++) {
        size_t share = bytes.bytes < KV_BLOB_ROW_BYTES ? bytes.bytes : KV_BLOB_ROW_BYTES;
        err = write_row(writer, object_id, number, kv_slice(bytes.data, share));
        bytes = kv_slice(bytes.data + share, bytes.bytes - share);
    }
    return err;
}

enum kv_err blobs_delete(struct store_txn *txn, uint64_t object_id, size_t *rows_left)
{
    uint8_t space[KEY_BYTES];
    struct kv_slice key, value;
    enum kv_err err = txn_seek(txn, STORE_BLOBS, key_of(object_id, 0, space), &key, &value);
    while (err == KV_OK) {
        uint64_t id;
        uint32_t row;
        if (!blobs_split_key(key, &id, &row))
            return KV_CORRUPT;
        if (id != object_id)
            return KV_OK;
        if (*rows_left == 0)
            return KV_OVERLOADED;
        --*rows_left;
        err = txn_delete_current(txn, STORE_BLOBS);
        if (err == KV_OK)
            err = txn_next(txn, STORE_BLOBS, &key, &value);
    }
    return err == KV_NOT_FOUND ? KV_OK : err;
}
