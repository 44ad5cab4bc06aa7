/* shard/rows.c -- key rows and object rows as bytes; the layouts stand in rows.h.
 * Owns:     nothing; decoded slices borrow from the value.
 * Promises: decode(encode(x)) == x; whatever else the bytes are, KV_CORRUPT and `out` untouched, never a read past the end.
 * Tests:    unit/shard/test_rows.c. */
#include "rows.h"

#include "bytes.h"
#include "kv/log.h"

#define POINTER_BYTES 33u /* an object row that says where the bytes are */
#define WHOLE_BYTES 17u   /* behind the bytes of one that has them */
#define WHOLE 0x80u       /* in its codec */

static uint64_t take_u64(const uint8_t **at)
{
    uint64_t number = bytes_get_u64(*at);
    *at += sizeof number;
    return number;
}

struct kv_slice row_encode_key(const struct kv_row *row, uint8_t space[ROW_KEY_BYTES_MAX])
{
    kv_assert(row->content_type.bytes <= KV_CONTENT_TYPE_BYTES_MAX);
    uint8_t *at = space;
    memcpy(at, row->hash.bytes, KV_HASH_BYTES);
    at = bytes_put_u64(at + KV_HASH_BYTES, row->size);
    at = bytes_put_u64(at, row->created_s);
    at = bytes_put_u64(at, row->txn_id);
    if (row->content_type.bytes > 0)
        memcpy(at, row->content_type.data, row->content_type.bytes);
    return kv_slice(space, ROW_KEY_BYTES_MIN + row->content_type.bytes);
}

enum kv_err row_decode_key(struct kv_slice value, struct kv_row *out)
{
    if (value.bytes < ROW_KEY_BYTES_MIN || value.bytes > ROW_KEY_BYTES_MAX)
        return KV_CORRUPT;
    const uint8_t *at = value.data + KV_HASH_BYTES;
    memcpy(out->hash.bytes, value.data, KV_HASH_BYTES);
    out->size = take_u64(&at);
    out->created_s = take_u64(&at);
    out->txn_id = take_u64(&at);
    out->content_type = kv_slice(at, value.bytes - ROW_KEY_BYTES_MIN);
    return KV_OK;
}

static struct kv_slice encode_whole(const struct kv_object *object, uint8_t *space)
{
    kv_assert(object->bytes.bytes == object->stored_bytes && object->stored_bytes <= ROW_CONTENT_BYTES_MAX);
    uint8_t *at = space;
    if (object->bytes.bytes > 0)
        memcpy(at, object->bytes.data, object->bytes.bytes);
    at = bytes_put_u64(at + object->bytes.bytes, object->size);
    at = bytes_put_u64(at, object->refs);
    *at++ = (uint8_t)(object->codec | WHOLE);
    return kv_slice(space, (size_t)(at - space));
}

struct kv_slice row_encode_object(const struct kv_object *object, uint8_t space[ROW_OBJECT_BYTES_MAX])
{
    if (object->object_id == 0)
        return encode_whole(object, space);
    uint8_t *at = bytes_put_u64(space, object->size);
    at = bytes_put_u64(at, object->stored_bytes);
    at = bytes_put_u64(at, object->object_id);
    at = bytes_put_u64(at, object->refs);
    *at = (uint8_t)object->codec;
    return kv_slice(space, POINTER_BYTES);
}

static enum kv_err decode_whole(struct kv_slice value, struct kv_object *out)
{
    if (value.bytes < WHOLE_BYTES || value.bytes > ROW_OBJECT_BYTES_MAX)
        return KV_CORRUPT;
    out->stored_bytes = value.bytes - WHOLE_BYTES;
    out->bytes = kv_slice(value.data, value.bytes - WHOLE_BYTES);
    const uint8_t *at = value.data + out->stored_bytes;
    out->size = take_u64(&at);
    out->refs = take_u64(&at);
    return KV_OK;
}

static enum kv_err decode_pointer(struct kv_slice value, struct kv_object *out)
{
    if (value.bytes != POINTER_BYTES)
        return KV_CORRUPT;
    const uint8_t *at = value.data;
    out->size = take_u64(&at);
    out->stored_bytes = take_u64(&at);
    out->object_id = take_u64(&at);
    out->refs = take_u64(&at);
    return out->stored_bytes > KV_STORED_BYTES_MAX || out->object_id == 0 ? KV_CORRUPT : KV_OK;
}

enum kv_err row_decode_object(struct kv_slice value, struct kv_object *out)
{
    struct kv_object object = {0};
    if (value.bytes == 0)
        return KV_CORRUPT;
    uint8_t last = value.data[value.bytes - 1];
    enum kv_err err = last & WHOLE ? decode_whole(value, &object) : decode_pointer(value, &object);
    if (err == KV_OK && (last & ~WHOLE) > KV_CODEC_MIXED)
        err = KV_CORRUPT;
    if (err != KV_OK)
        return err;
    object.codec = (enum kv_codec)(last & ~WHOLE);
    *out = object;
    return KV_OK;
}

struct kv_slice row_encode_id(uint64_t id, uint8_t space[8])
{
    uint64_t big = htobe64(id);
    memcpy(space, &big, sizeof big);
    return kv_slice(space, sizeof big);
}

uint64_t row_decode_id(struct kv_slice eight_bytes)
{
    uint64_t big;
    kv_assert(eight_bytes.bytes == sizeof big);
    memcpy(&big, eight_bytes.data, sizeof big);
    return be64toh(big);
}
