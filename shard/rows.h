/* shard/rows.h -- the stored form of key rows and object rows, alike in overlay and LMDB.
 *   key row:    hash 32 | size u64 | created_s u64 | txn_id u64 | content type, the rest   (integers little endian)
 *   object row: the stored bytes | size u64 | refs u64 | codec u8 + 128                    a small content is its row,
 *               size u64 | stored_bytes u64 | object_id u64 | refs u64 | codec u8          of any other they are in `blobs`
 * The last byte tells the two apart. Stores of format 1 have the second one for small contents, too.
 * Decoding checks lengths: KV_CORRUPT for anything else. Slices borrow. Tests: unit/shard/test_rows.c. */
#ifndef KV_SHARD_ROWS_H
#define KV_SHARD_ROWS_H

#include "kv/buf.h"
#include "kv/err.h"
#include "kv/model.h"

/* Of a content in its row: 256 bytes that do not shrink, with their checksum. Rows lie at random places, so each is a page to be
 * written: 1,024 bytes in the row cost PUTs a fifth, and 500 gain nothing for them any more. GETs gain a tenth to a third. */
#define ROW_CONTENT_BYTES_MAX 268u
#define ROW_OBJECT_BYTES_MAX (ROW_CONTENT_BYTES_MAX + 17u)
#define ROW_KEY_BYTES_MIN 56u
#define ROW_KEY_BYTES_MAX (ROW_KEY_BYTES_MIN + KV_CONTENT_TYPE_BYTES_MAX)

/* Write at most as many bytes and return them as a slice of `space`. object_id 0: a small content, all of it in object->bytes. */
struct kv_slice row_encode_key(const struct kv_row *row, uint8_t space[ROW_KEY_BYTES_MAX]);
struct kv_slice row_encode_object(const struct kv_object *object, uint8_t space[ROW_OBJECT_BYTES_MAX]);
enum kv_err row_decode_key(struct kv_slice value, struct kv_row *out);
/* held false; `bytes` are those of the row, none when object_id says where they are. */
enum kv_err row_decode_object(struct kv_slice value, struct kv_object *out);
/* 8 bytes big endian: ids sort as numbers. */
struct kv_slice row_encode_id(uint64_t id, uint8_t space[8]);
uint64_t row_decode_id(struct kv_slice eight_bytes);

#endif
