/* shard/wire/elements.c -- see elements.h. A list is walked once at decoding with the same functions that its cursor uses
 * later: what passed cannot fail then. */
#include "wire/elements.h"

#include <stdlib.h>

#define LIST_MAX 16777216u /* elements; the frame's length bounds it long before */

struct kv_hash kv_read_hash(struct kv_unpack *in)
{
    struct kv_hash hash = {{0}};
    struct kv_slice bytes = kv_unpack_bin(in, KV_HASH_BYTES);
    if (bytes.bytes == KV_HASH_BYTES)
        memcpy(hash.bytes, bytes.data, KV_HASH_BYTES);
    else
        in->bad = true;
    return hash;
}

void kv_put_hash(struct kv_buf *buf, const struct kv_hash *hash)
{
    kv_pack_bin(buf, kv_hash_slice(hash));
}

struct kv_slice kv_read_key(struct kv_unpack *in)
{
    struct kv_slice key = kv_unpack_bin(in, KV_KEY_BYTES_MAX);
    if (key.bytes == 0)
        in->bad = true;
    return key;
}

void kv_put_key(struct kv_buf *buf, struct kv_slice key)
{
    kv_pack_bin(buf, key);
}

enum kv_err kv_read_err(struct kv_unpack *in)
{
    return (enum kv_err)kv_unpack_uint(in, KV_ERR_COUNT - 1);
}

bool kv_read_row(struct kv_unpack *in, struct kv_row *out)
{
    if (kv_unpack_nil(in))
        return false;
    kv_unpack_array_of(in, 5);
    out->hash = kv_read_hash(in);
    out->size = kv_unpack_uint(in, UINT64_MAX);
    out->created_s = kv_unpack_uint(in, UINT64_MAX);
    out->txn_id = kv_unpack_uint(in, UINT64_MAX);
    out->content_type = kv_unpack_bin(in, KV_CONTENT_TYPE_BYTES_MAX);
    return true;
}

void kv_put_row_or_nil(struct kv_buf *buf, const struct kv_row *row)
{
    if (row == NULL) {
        kv_pack_nil(buf);
        return;
    }
    kv_pack_array(buf, 5);
    kv_put_hash(buf, &row->hash);
    kv_pack_uint(buf, row->size);
    kv_pack_uint(buf, row->created_s);
    kv_pack_uint(buf, row->txn_id);
    kv_pack_bin(buf, row->content_type);
}

bool kv_read_object(struct kv_unpack *in, struct kv_object *out)
{
    if (kv_unpack_nil(in))
        return false;
    kv_unpack_array_of(in, 7);
    out->size = kv_unpack_uint(in, UINT64_MAX);
    out->stored_bytes = kv_unpack_uint(in, KV_STORED_BYTES_MAX);
    out->codec = (enum kv_codec)kv_unpack_uint(in, KV_CODEC_MIXED);
    out->object_id = kv_unpack_uint(in, UINT64_MAX);
    out->refs = kv_unpack_uint(in, UINT64_MAX);
    out->held = kv_unpack_bool(in);
    out->bytes = kv_unpack_bin(in, BYTES_ANY);
    return true;
}

void kv_put_object_or_nil(struct kv_buf *buf, const struct kv_object *object)
{
    if (object == NULL) {
        kv_pack_nil(buf);
        return;
    }
    kv_pack_array(buf, 7);
    kv_pack_uint(buf, object->size);
    kv_pack_uint(buf, object->stored_bytes);
    kv_pack_uint(buf, object->codec);
    kv_pack_uint(buf, object->object_id);
    kv_pack_uint(buf, object->refs);
    kv_pack_bool(buf, object->held);
    kv_pack_bin(buf, object->bytes);
}

void kv_put_op(struct kv_buf *buf, const struct kv_op *op)
{
    static const size_t members[] = {
        [KV_OP_SET] = 4, [KV_OP_CLEAR] = 3, [KV_OP_CHECK] = 3, [KV_OP_ADD] = 8, [KV_OP_DROP] = 3};
    kv_pack_array(buf, members[op->kind]);
    kv_pack_uint(buf, op->kind);
    if (kv_op_is_on_key(op)) {
        kv_put_key(buf, op->key);
        kv_pack_uint(buf, op->expect_txn);
    } else {
        kv_put_hash(buf, &op->hash);
        kv_pack_uint(buf, op->count);
    }
    if (op->kind == KV_OP_SET)
        kv_put_row_or_nil(buf, &op->row);
    if (op->kind != KV_OP_ADD)
        return;
    kv_pack_uint(buf, op->size);
    kv_pack_uint(buf, op->codec);
    kv_pack_uint(buf, op->object_id);
    kv_pack_uint(buf, op->stored_bytes);
    if (op->has_bytes)
        kv_pack_bin(buf, op->bytes);
    else
        kv_pack_nil(buf);
}

static void read_add(struct kv_unpack *in, struct kv_op *out)
{
    out->size = kv_unpack_uint(in, UINT64_MAX);
    out->codec = (enum kv_codec)kv_unpack_uint(in, KV_CODEC_MIXED);
    out->object_id = kv_unpack_uint(in, UINT64_MAX);
    out->stored_bytes = kv_unpack_uint(in, KV_STORED_BYTES_MAX);
    out->has_bytes = !kv_unpack_nil(in);
    if (!out->has_bytes)
        return;
    out->bytes = kv_unpack_bin(in, KV_INLINE_BYTES_MAX);
    in->bad |= out->bytes.bytes != out->stored_bytes;
}

static void read_op(struct kv_unpack *in, struct kv_op *out)
{
    *out = (struct kv_op){0};
    size_t members = kv_unpack_array(in, 8);
    out->kind = (enum kv_op_kind)kv_unpack_uint(in, KV_OP_DROP);
    if (kv_op_is_on_key(out)) {
        out->key = kv_read_key(in);
        out->expect_txn = kv_unpack_uint(in, UINT64_MAX);
    } else {
        out->hash = kv_read_hash(in);
        out->count = kv_unpack_uint(in, UINT32_MAX);
        in->bad |= out->count == 0;
    }
    if (out->kind == KV_OP_SET && !kv_read_row(in, &out->row))
        in->bad = true;
    if (out->kind == KV_OP_ADD)
        read_add(in, out);
    static const size_t expected[] = {0, 4, 3, 3, 8, 3};
    if (members == 0 || members != expected[out->kind])
        in->bad = true;
}

void kv_put_ops(struct kv_buf *buf, const struct kv_ops *ops)
{
    kv_pack_array(buf, ops->count);
    for (size_t i = 0; i < ops->count; i++)
        kv_put_op(buf, &ops->at[i]);
}

/* Memory for as many as are claimed, since few can be. */
void kv_read_ops(struct kv_unpack *in, struct kv_ops *out)
{
    out->count = kv_unpack_array(in, KV_TXN_OPS_MAX);
    if (out->count > out->capacity) {
        out->at = kv_realloc(out->at, out->count * sizeof *out->at);
        out->capacity = out->count;
    }
    for (size_t i = 0; i < out->count && !in->bad; i++)
        read_op(in, &out->at[i]);
}

void kv_ops_free(struct kv_ops *ops)
{
    free(ops->at);
    *ops = (struct kv_ops){0};
}

/* ---- cursors -------------------------------------------------------------------------------------------------- */

/* Takes one element off the front of the list through `element`, which reads it from `in`. */
#define NEXT(list, element)                                                                                            \
    do {                                                                                                               \
        if ((list)->count == 0)                                                                                        \
            return false;                                                                                              \
        struct kv_unpack in_ = kv_unpack_start((list)->encoded);                                                       \
        struct kv_unpack *in = &in_;                                                                                   \
        element;                                                                                                       \
        if (in->bad)                                                                                                   \
            return false;                                                                                              \
        (list)->encoded = kv_slice(in->at, (size_t)(in->end - in->at));                                                \
        (list)->count--;                                                                                               \
        return true;                                                                                                   \
    } while (0)

bool kv_next_key(struct kv_list *keys, struct kv_slice *out)
{
    NEXT(keys, *out = kv_read_key(in));
}

bool kv_next_hash(struct kv_list *hashes, struct kv_hash *out)
{
    NEXT(hashes, *out = kv_read_hash(in));
}

bool kv_next_uint(struct kv_list *numbers, uint64_t *out)
{
    NEXT(numbers, *out = kv_unpack_uint(in, UINT64_MAX));
}

bool kv_next_bool(struct kv_list *flags, bool *out)
{
    NEXT(flags, *out = kv_unpack_bool(in));
}

bool kv_next_row(struct kv_list *rows, bool *present, struct kv_row *out)
{
    NEXT(rows, *present = kv_read_row(in, out));
}

bool kv_next_op(struct kv_list *ops, struct kv_op *out)
{
    NEXT(ops, read_op(in, out));
}

static struct kv_slice read_intent(struct kv_unpack *in, uint64_t *txn_id, kv_shard_set *participants)
{
    kv_unpack_array_of(in, 2);
    *txn_id = kv_unpack_uint(in, UINT64_MAX);
    *participants = kv_unpack_uint(in, UINT64_MAX);
    return kv_slice(NULL, 0);
}

bool kv_next_report_intent(struct kv_list *intents, uint64_t *txn_id, kv_shard_set *participants)
{
    NEXT(intents, read_intent(in, txn_id, participants));
}

static void read_page_entry(struct kv_unpack *in, struct kv_slice *key, bool *has_row, struct kv_row *row)
{
    kv_unpack_array_of(in, 2);
    *key = kv_read_key(in);
    *has_row = kv_read_row(in, row);
}

bool kv_next_page_entry(struct kv_list *entries, struct kv_slice *key, bool *has_row, struct kv_row *row)
{
    NEXT(entries, read_page_entry(in, key, has_row, row));
}

static void read_counter(struct kv_unpack *in, struct kv_slice *name, uint64_t *value)
{
    kv_unpack_array_of(in, 2);
    *name = kv_unpack_str(in, 64);
    *value = kv_unpack_uint(in, UINT64_MAX);
}

bool kv_next_counter(struct kv_list *pairs, struct kv_slice *name, uint64_t *value)
{
    NEXT(pairs, read_counter(in, name, value));
}

static void skip_element(struct kv_unpack *in, enum kv_element element)
{
    struct kv_row row;
    struct kv_slice bytes;
    uint64_t number;
    bool flag;
    switch (element) {
    case KV_ELEMENT_KEY:
        (void)kv_read_key(in);
        break;
    case KV_ELEMENT_HASH:
        (void)kv_read_hash(in);
        break;
    case KV_ELEMENT_UINT:
        (void)kv_unpack_uint(in, UINT64_MAX);
        break;
    case KV_ELEMENT_BOOL:
        (void)kv_unpack_bool(in);
        break;
    case KV_ELEMENT_ROW:
        (void)kv_read_row(in, &row);
        break;
    case KV_ELEMENT_INTENT:
        (void)read_intent(in, &number, &number);
        break;
    case KV_ELEMENT_ENTRY:
        read_page_entry(in, &bytes, &flag, &row);
        break;
    case KV_ELEMENT_COUNTER:
        read_counter(in, &bytes, &number);
        break;
    }
}

struct kv_list kv_read_list(struct kv_unpack *in, enum kv_element element)
{
    struct kv_list list = {.count = kv_unpack_array(in, LIST_MAX)};
    const uint8_t *begin = in->at;
    for (size_t i = 0; i < list.count && !in->bad; i++)
        skip_element(in, element);
    list.encoded = kv_slice(begin, (size_t)(in->at - begin));
    return list;
}

/* ---- an error and a list -------------------------------------------------------------------------------------- */

void kv_put_err_and_list(struct kv_buf *buf, enum kv_err err, size_t count)
{
    kv_pack_array(buf, 2);
    kv_pack_uint(buf, err);
    kv_pack_array(buf, count);
}

enum kv_err kv_get_err_and_list(struct kv_slice body, enum kv_element element, enum kv_err *err, struct kv_list *list)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 2);
    *err = kv_read_err(&in);
    *list = kv_read_list(&in, element);
    return kv_unpack_end(&in);
}
