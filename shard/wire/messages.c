/* shard/wire/messages.c -- see messages.h. Each body stands here twice, once written and once read, side by side, in the order
 * of the message table; those of transactions and of staged contents are in messages_txn.c. */
#include "wire/elements.h"

void kv_put_hello(struct kv_buf *buf, const struct kv_msg_hello *hello)
{
    kv_pack_array(buf, 6);
    kv_pack_uint(buf, hello->version);
    kv_pack_uint(buf, hello->role);
    kv_pack_uint(buf, hello->shard_index);
    kv_pack_uint(buf, hello->shard_count);
    kv_pack_uint(buf, hello->epoch);
    kv_pack_uint(buf, hello->thread_index);
}

enum kv_err kv_get_hello(struct kv_slice body, struct kv_msg_hello *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 6);
    out->version = kv_unpack_uint(&in, UINT64_MAX);
    out->role = (enum kv_role)kv_unpack_uint(&in, KV_ROLE_SHARD);
    out->shard_index = kv_unpack_uint(&in, KV_SHARDS_MAX);
    out->shard_count = kv_unpack_uint(&in, KV_SHARDS_MAX);
    out->epoch = kv_unpack_uint(&in, KV_EPOCH_MAX);
    out->thread_index = kv_unpack_uint(&in, UINT8_MAX);
    return kv_unpack_end(&in);
}

void kv_put_read(struct kv_buf *buf, const struct kv_msg_read *read)
{
    kv_pack_array(buf, 2);
    kv_put_key(buf, read->key);
    kv_pack_uint(buf, read->bytes_max);
}

enum kv_err kv_get_read(struct kv_slice body, struct kv_msg_read *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 2);
    out->key = kv_read_key(&in);
    out->bytes_max = kv_unpack_uint(&in, KV_PIECE_BYTES_MAX);
    return kv_unpack_end(&in);
}

void kv_put_row(struct kv_buf *buf, const struct kv_msg_row *row)
{
    kv_pack_array(buf, 3);
    kv_pack_uint(buf, row->err);
    kv_put_row_or_nil(buf, row->has_row ? &row->row : NULL);
    kv_put_object_or_nil(buf, row->has_object ? &row->object : NULL);
}

enum kv_err kv_get_row(struct kv_slice body, struct kv_msg_row *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 3);
    out->err = kv_read_err(&in);
    out->has_row = kv_read_row(&in, &out->row);
    out->has_object = kv_read_object(&in, &out->object);
    return kv_unpack_end(&in);
}

static void put_slot(struct kv_buf *buf, struct kv_msg_slot slot)
{
    if (slot.named)
        kv_pack_uint(buf, slot.first);
    else
        kv_pack_nil(buf);
}

/* One that has room for so many bytes. */
static struct kv_msg_slot read_slot(struct kv_unpack *in, uint64_t bytes_max)
{
    struct kv_msg_slot slot = {.named = !kv_unpack_nil(in)};
    if (!slot.named)
        return slot;
    slot.first = kv_unpack_uint(in, KV_ARENA_UNITS - 1);
    if (bytes_max > KV_SLOT_BYTES_MAX || slot.first * KV_ARENA_UNIT_BYTES + bytes_max > KV_ARENA_BYTES)
        in->bad = true;
    return slot;
}

void kv_put_open(struct kv_buf *buf, const struct kv_msg_open *open)
{
    kv_pack_array(buf, 3);
    kv_put_hash(buf, &open->hash);
    kv_pack_uint(buf, open->bytes_max);
    put_slot(buf, open->slot);
}

enum kv_err kv_get_open(struct kv_slice body, struct kv_msg_open *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 3);
    out->hash = kv_read_hash(&in);
    out->bytes_max = kv_unpack_uint(&in, KV_PIECE_BYTES_MAX);
    out->slot = read_slot(&in, out->bytes_max);
    return kv_unpack_end(&in);
}

void kv_put_object(struct kv_buf *buf, const struct kv_msg_object *object)
{
    kv_pack_array(buf, 3);
    kv_pack_uint(buf, object->err);
    kv_put_object_or_nil(buf, object->err == KV_OK ? &object->object : NULL);
    kv_pack_uint(buf, object->slot_bytes);
}

enum kv_err kv_get_object(struct kv_slice body, struct kv_msg_object *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 3);
    out->err = kv_read_err(&in);
    if (kv_read_object(&in, &out->object) != (out->err == KV_OK))
        in.bad = true;
    out->slot_bytes = kv_unpack_uint(&in, KV_SLOT_BYTES_MAX);
    return kv_unpack_end(&in);
}

void kv_put_fetch(struct kv_buf *buf, const struct kv_msg_fetch *fetch)
{
    kv_pack_array(buf, 4);
    kv_pack_uint(buf, fetch->object_id);
    kv_pack_uint(buf, fetch->offset);
    kv_pack_uint(buf, fetch->bytes_max);
    put_slot(buf, fetch->slot);
}

enum kv_err kv_get_fetch(struct kv_slice body, struct kv_msg_fetch *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 4);
    out->object_id = kv_unpack_uint(&in, UINT64_MAX);
    out->offset = kv_unpack_uint(&in, KV_STORED_BYTES_MAX);
    out->bytes_max = kv_unpack_uint(&in, KV_PIECE_BYTES_MAX);
    out->slot = read_slot(&in, out->bytes_max);
    return kv_unpack_end(&in);
}

void kv_put_piece(struct kv_buf *buf, const struct kv_msg_piece *piece)
{
    kv_pack_array(buf, 2);
    kv_pack_uint(buf, piece->err);
    if (piece->in_slot)
        kv_pack_uint(buf, piece->slot_bytes);
    else
        kv_pack_bin(buf, piece->bytes);
}

void kv_put_piece_begin(struct kv_buf *buf, size_t bytes)
{
    kv_pack_array(buf, 2);
    kv_pack_uint(buf, KV_OK);
    kv_pack_bin_begin(buf, bytes);
}

enum kv_err kv_get_piece(struct kv_slice body, struct kv_msg_piece *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 2);
    out->err = kv_read_err(&in);
    out->in_slot = kv_unpack_peek(&in) == KV_UNPACK_UINT;
    out->slot_bytes = out->in_slot ? kv_unpack_uint(&in, KV_SLOT_BYTES_MAX) : 0;
    out->bytes = out->in_slot ? kv_slice(NULL, 0) : kv_unpack_bin(&in, BYTES_ANY);
    return kv_unpack_end(&in);
}

void kv_put_id(struct kv_buf *buf, uint64_t id)
{
    kv_pack_array(buf, 1);
    kv_pack_uint(buf, id);
}

enum kv_err kv_get_id(struct kv_slice body, uint64_t *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 1);
    *out = kv_unpack_uint(&in, UINT64_MAX);
    return kv_unpack_end(&in);
}

void kv_put_done(struct kv_buf *buf, enum kv_err err)
{
    kv_put_id(buf, err);
}

enum kv_err kv_get_done(struct kv_slice body, enum kv_err *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 1);
    *out = kv_read_err(&in);
    return kv_unpack_end(&in);
}

void kv_put_empty(struct kv_buf *buf)
{
    kv_pack_array(buf, 0);
}

enum kv_err kv_get_empty(struct kv_slice body)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 0);
    return kv_unpack_end(&in);
}

void kv_put_refs_begin(struct kv_buf *buf, size_t count)
{
    kv_pack_array(buf, 1);
    kv_pack_array(buf, count);
}

enum kv_err kv_get_refs(struct kv_slice body, struct kv_list *hashes)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 1);
    *hashes = kv_read_list(&in, KV_ELEMENT_HASH);
    return kv_unpack_end(&in);
}

void kv_put_counts_begin(struct kv_buf *buf, enum kv_err err, size_t count)
{
    kv_put_err_and_list(buf, err, count);
}

enum kv_err kv_get_counts(struct kv_slice body, enum kv_err *err, struct kv_list *numbers)
{
    return kv_get_err_and_list(body, KV_ELEMENT_UINT, err, numbers);
}

void kv_put_list(struct kv_buf *buf, const struct kv_msg_list *list)
{
    kv_pack_array(buf, 5);
    kv_pack_bin(buf, list->after);
    kv_pack_bool(buf, list->inclusive);
    kv_pack_bin(buf, list->prefix);
    kv_pack_bin(buf, list->delimiter);
    kv_pack_uint(buf, list->limit);
}

enum kv_err kv_get_list(struct kv_slice body, struct kv_msg_list *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 5);
    out->after = kv_unpack_bin(&in, KV_KEY_BYTES_MAX + 1);
    out->inclusive = kv_unpack_bool(&in);
    out->prefix = kv_unpack_bin(&in, KV_KEY_BYTES_MAX);
    out->delimiter = kv_unpack_bin(&in, 4); /* one character of UTF-8 */
    out->limit = kv_unpack_uint(&in, UINT32_MAX);
    in.bad |= out->limit == 0;
    return kv_unpack_end(&in);
}

void kv_put_page_begin(struct kv_buf *buf, const struct kv_msg_page *page)
{
    kv_pack_array(buf, 5);
    kv_pack_uint(buf, page->err);
    kv_pack_bool(buf, page->more);
    kv_pack_uint(buf, page->keys);
    kv_pack_bin(buf, page->resume);
    kv_pack_array(buf, page->entries.count);
}

void kv_put_page_entry(struct kv_buf *buf, struct kv_slice key, const struct kv_row *row_or_null)
{
    kv_pack_array(buf, 2);
    kv_put_key(buf, key);
    kv_put_row_or_nil(buf, row_or_null);
}

enum kv_err kv_get_page(struct kv_slice body, struct kv_msg_page *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 5);
    out->err = kv_read_err(&in);
    out->more = kv_unpack_bool(&in);
    out->keys = kv_unpack_uint(&in, UINT64_MAX);
    out->resume = kv_unpack_bin(&in, KV_KEY_BYTES_MAX + 1);
    in.bad |= out->resume.bytes > 0 && !out->more;
    out->entries = kv_read_list(&in, KV_ELEMENT_ENTRY);
    return kv_unpack_end(&in);
}

void kv_put_counters_begin(struct kv_buf *buf, size_t count)
{
    kv_pack_array(buf, 1);
    kv_pack_array(buf, count);
}

void kv_put_counter(struct kv_buf *buf, const char *name, uint64_t value)
{
    kv_pack_array(buf, 2);
    kv_pack_str(buf, kv_slice_text(name));
    kv_pack_uint(buf, value);
}

enum kv_err kv_get_counters(struct kv_slice body, struct kv_list *pairs)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 1);
    *pairs = kv_read_list(&in, KV_ELEMENT_COUNTER);
    return kv_unpack_end(&in);
}
