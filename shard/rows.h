/* shard/rows.h -- the stored form of key rows and object rows, alike in overlay and LMDB.
 *   key row:    hash 32 | size u64 | created_s u64 | txn_id u64 | content type, the rest   (integers little endian)
 *   object row: size u64 | stored_bytes u64 | object_id u64 | refs u64 | codec u8
 * Decoding checks lengths: KV_CORRUPT for anything else. Slices borrow. Tests: unit/shard/test_rows.c. */
#ifndef KV_SHARD_ROWS_H
#define KV_SHARD_ROWS_H

#include "kv/buf.h"
#include "kv/err.h"
#include "kv/model.h"

#define ROW_OBJECT_BYTES 33u
#define ROW_KEY_BYTES_MIN 56u
#define ROW_KEY_BYTES_MAX (ROW_KEY_BYTES_MIN + KV_CONTENT_TYPE_BYTES_MAX)

/* Writes at most ROW_KEY_BYTES_MAX / exactly ROW_OBJECT_BYTES bytes and returns them as a slice of `space`. */
struct kv_slice row_encode_key(const struct kv_row *row, uint8_t space[ROW_KEY_BYTES_MAX]);
struct kv_slice row_encode_object(const struct kv_object *object, uint8_t space[ROW_OBJECT_BYTES]);
enum kv_err row_decode_key(struct kv_slice value, struct kv_row *out);
enum kv_err row_decode_object(struct kv_slice value, struct kv_object *out); /* held false, bytes empty */
/* 8 bytes big endian: ids sort as numbers. */
struct kv_slice row_encode_id(uint64_t id, uint8_t space[8]);
uint64_t row_decode_id(struct kv_slice eight_bytes);

#endif
