/* shard/wire/messages.c -- see messages.h. Each body stands here twice, once written and once read, side by side. Lists are
 * walked once at decoding with the same function that the cursor uses later: what passed cannot fail then. */
#include "wire/messages.h"

#include "kv/log.h"

#define BYTES_ANY KV_FRAME_BODY_BYTES_MAX
#define LIST_MAX 16777216u /* elements; the frame's length bounds it long before */

/* ---- elements ------------------------------------------------------------------------------------------------- */

static struct kv_hash read_hash(struct kv_unpack *in)
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

static struct kv_slice read_key(struct kv_unpack *in)
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

static enum kv_err read_err(struct kv_unpack *in)
{
    return (enum kv_err)kv_unpack_uint(in, KV_ERR_COUNT - 1);
}

static bool read_row(struct kv_unpack *in, struct kv_row *out)
{
    if (kv_unpack_nil(in))
        return false;
    kv_unpack_array_of(in, 5);
    out->hash = read_hash(in);
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

static bool read_object(struct kv_unpack *in, struct kv_object *out)
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

static void put_object_or_nil(struct kv_buf *buf, const struct kv_object *object)
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
    if (op->kind == KV_OP_ADD || op->kind == KV_OP_DROP) {
        kv_put_hash(buf, &op->hash);
        kv_pack_uint(buf, op->count);
    } else {
        kv_put_key(buf, op->key);
        kv_pack_uint(buf, op->expect_txn);
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

static struct kv_op read_op(struct kv_unpack *in)
{
    struct kv_op op = {0};
    size_t members = kv_unpack_array(in, 8);
    op.kind = (enum kv_op_kind)kv_unpack_uint(in, KV_OP_DROP);
    if (op.kind == KV_OP_ADD || op.kind == KV_OP_DROP) {
        op.hash = read_hash(in);
        op.count = kv_unpack_uint(in, UINT32_MAX);
        in->bad |= op.count == 0;
    } else {
        op.key = read_key(in);
        op.expect_txn = kv_unpack_uint(in, UINT64_MAX);
    }
    if (op.kind == KV_OP_SET && !read_row(in, &op.row))
        in->bad = true;
    if (op.kind == KV_OP_ADD)
        read_add(in, &op);
    static const size_t expected[] = {0, 4, 3, 3, 8, 3};
    if (members == 0 || members != expected[op.kind])
        in->bad = true;
    return op;
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
    NEXT(keys, *out = read_key(in));
}

bool kv_next_hash(struct kv_list *hashes, struct kv_hash *out)
{
    NEXT(hashes, *out = read_hash(in));
}

bool kv_next_uint(struct kv_list *numbers, uint64_t *out)
{
    NEXT(numbers, *out = kv_unpack_uint(in, UINT64_MAX));
}

bool kv_next_bool(struct kv_list *flags, bool *out)
{
    NEXT(flags, *out = kv_unpack_bool(in));
}

bool kv_next_op(struct kv_list *ops, struct kv_op *out)
{
    NEXT(ops, *out = read_op(in));
}

bool kv_next_row(struct kv_list *rows, bool *present, struct kv_row *out)
{
    NEXT(rows, *present = read_row(in, out));
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
    *key = read_key(in);
    *has_row = read_row(in, row);
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

enum element { KEY, HASH, UINT, BOOL, OP, ROW, INTENT, ENTRY, COUNTER };

static void skip_element(struct kv_unpack *in, enum element element)
{
    struct kv_row row;
    struct kv_slice bytes;
    uint64_t number;
    bool flag;
    switch (element) {
    case KEY:
        (void)read_key(in);
        break;
    case HASH:
        (void)read_hash(in);
        break;
    case UINT:
        (void)kv_unpack_uint(in, UINT64_MAX);
        break;
    case BOOL:
        (void)kv_unpack_bool(in);
        break;
    case OP:
        (void)read_op(in);
        break;
    case ROW:
        (void)read_row(in, &row);
        break;
    case INTENT:
        (void)read_intent(in, &number, &number);
        break;
    case ENTRY:
        read_page_entry(in, &bytes, &flag, &row);
        break;
    case COUNTER:
        read_counter(in, &bytes, &number);
        break;
    }
}

static struct kv_list read_list(struct kv_unpack *in, enum element element)
{
    struct kv_list list = {.count = kv_unpack_array(in, LIST_MAX)};
    const uint8_t *begin = in->at;
    for (size_t i = 0; i < list.count && !in->bad; i++)
        skip_element(in, element);
    list.encoded = kv_slice(begin, (size_t)(in->at - begin));
    return list;
}

/* ---- bodies, in the order of the message table ---------------------------------------------------------------- */

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
    out->key = read_key(&in);
    out->bytes_max = kv_unpack_uint(&in, KV_PIECE_BYTES_MAX);
    return kv_unpack_end(&in);
}

void kv_put_row(struct kv_buf *buf, const struct kv_msg_row *row)
{
    kv_pack_array(buf, 3);
    kv_pack_uint(buf, row->err);
    kv_put_row_or_nil(buf, row->has_row ? &row->row : NULL);
    put_object_or_nil(buf, row->has_object ? &row->object : NULL);
}

enum kv_err kv_get_row(struct kv_slice body, struct kv_msg_row *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 3);
    out->err = read_err(&in);
    out->has_row = read_row(&in, &out->row);
    out->has_object = read_object(&in, &out->object);
    return kv_unpack_end(&in);
}

void kv_put_open(struct kv_buf *buf, const struct kv_msg_open *open)
{
    kv_pack_array(buf, 2);
    kv_put_hash(buf, &open->hash);
    kv_pack_uint(buf, open->bytes_max);
}

enum kv_err kv_get_open(struct kv_slice body, struct kv_msg_open *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 2);
    out->hash = read_hash(&in);
    out->bytes_max = kv_unpack_uint(&in, KV_PIECE_BYTES_MAX);
    return kv_unpack_end(&in);
}

void kv_put_object(struct kv_buf *buf, const struct kv_msg_object *object)
{
    kv_pack_array(buf, 2);
    kv_pack_uint(buf, object->err);
    put_object_or_nil(buf, object->err == KV_OK ? &object->object : NULL);
}

enum kv_err kv_get_object(struct kv_slice body, struct kv_msg_object *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 2);
    out->err = read_err(&in);
    if (read_object(&in, &out->object) != (out->err == KV_OK))
        in.bad = true;
    return kv_unpack_end(&in);
}

void kv_put_fetch(struct kv_buf *buf, const struct kv_msg_fetch *fetch)
{
    kv_pack_array(buf, 3);
    kv_pack_uint(buf, fetch->object_id);
    kv_pack_uint(buf, fetch->offset);
    kv_pack_uint(buf, fetch->bytes_max);
}

enum kv_err kv_get_fetch(struct kv_slice body, struct kv_msg_fetch *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 3);
    out->object_id = kv_unpack_uint(&in, UINT64_MAX);
    out->offset = kv_unpack_uint(&in, KV_STORED_BYTES_MAX);
    out->bytes_max = kv_unpack_uint(&in, KV_PIECE_BYTES_MAX);
    return kv_unpack_end(&in);
}

void kv_put_piece(struct kv_buf *buf, const struct kv_msg_piece *piece)
{
    kv_pack_array(buf, 2);
    kv_pack_uint(buf, piece->err);
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
    out->err = read_err(&in);
    out->bytes = kv_unpack_bin(&in, BYTES_ANY);
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
    *out = read_err(&in);
    return kv_unpack_end(&in);
}

void kv_put_forget_begin(struct kv_buf *buf, uint64_t from_txn_id, uint64_t below_txn_id, size_t open_count)
{
    kv_pack_array(buf, 3);
    kv_pack_uint(buf, from_txn_id);
    kv_pack_uint(buf, below_txn_id);
    kv_pack_array(buf, open_count);
}

enum kv_err kv_get_forget(struct kv_slice body, uint64_t *from_txn_id, uint64_t *below_txn_id, struct kv_list *open)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 3);
    *from_txn_id = kv_unpack_uint(&in, UINT64_MAX);
    *below_txn_id = kv_unpack_uint(&in, UINT64_MAX);
    *open = read_list(&in, UINT);
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
    *hashes = read_list(&in, HASH);
    return kv_unpack_end(&in);
}

/* COUNTS, LOCKED and VOTE are alike: an error, then a list. */
static void put_err_and_list(struct kv_buf *buf, enum kv_err err, size_t count)
{
    kv_pack_array(buf, 2);
    kv_pack_uint(buf, err);
    kv_pack_array(buf, count);
}

static enum kv_err get_err_and_list(struct kv_slice body, enum element element, enum kv_err *err, struct kv_list *list)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 2);
    *err = read_err(&in);
    *list = read_list(&in, element);
    return kv_unpack_end(&in);
}

void kv_put_counts_begin(struct kv_buf *buf, enum kv_err err, size_t count)
{
    put_err_and_list(buf, err, count);
}

enum kv_err kv_get_counts(struct kv_slice body, enum kv_err *err, struct kv_list *numbers)
{
    return get_err_and_list(body, UINT, err, numbers);
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
    out->err = read_err(&in);
    out->more = kv_unpack_bool(&in);
    out->keys = kv_unpack_uint(&in, UINT64_MAX);
    out->resume = kv_unpack_bin(&in, KV_KEY_BYTES_MAX);
    in.bad |= out->resume.bytes > 0 && !out->more;
    out->entries = read_list(&in, ENTRY);
    return kv_unpack_end(&in);
}

void kv_put_lock_begin(struct kv_buf *buf, uint64_t txn_id, size_t count)
{
    kv_pack_array(buf, 2);
    kv_pack_uint(buf, txn_id);
    kv_pack_array(buf, count);
}

enum kv_err kv_get_lock(struct kv_slice body, uint64_t *txn_id, struct kv_list *keys)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 2);
    *txn_id = kv_unpack_uint(&in, UINT64_MAX);
    *keys = read_list(&in, KEY);
    return kv_unpack_end(&in);
}

void kv_put_locked_begin(struct kv_buf *buf, enum kv_err err, size_t count)
{
    put_err_and_list(buf, err, count);
}

enum kv_err kv_get_locked(struct kv_slice body, enum kv_err *err, struct kv_list *rows)
{
    return get_err_and_list(body, ROW, err, rows);
}

void kv_put_prepare_begin(struct kv_buf *buf, uint64_t txn_id, kv_shard_set participants, size_t count)
{
    kv_pack_array(buf, 3);
    kv_pack_uint(buf, txn_id);
    kv_pack_uint(buf, participants);
    kv_pack_array(buf, count);
}

enum kv_err kv_get_prepare(struct kv_slice body, uint64_t *txn_id, kv_shard_set *participants, struct kv_list *ops)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 3);
    *txn_id = kv_unpack_uint(&in, UINT64_MAX);
    *participants = kv_unpack_uint(&in, UINT64_MAX);
    *ops = read_list(&in, OP);
    return kv_unpack_end(&in);
}

void kv_put_vote_begin(struct kv_buf *buf, enum kv_err err, size_t count)
{
    put_err_and_list(buf, err, count);
}

enum kv_err kv_get_vote(struct kv_slice body, enum kv_err *err, struct kv_list *existed)
{
    return get_err_and_list(body, BOOL, err, existed);
}

void kv_put_report_begin(struct kv_buf *buf, size_t intent_count)
{
    kv_pack_array(buf, 2);
    kv_pack_array(buf, intent_count);
}

void kv_put_report_intent(struct kv_buf *buf, uint64_t txn_id, kv_shard_set participants)
{
    kv_pack_array(buf, 2);
    kv_pack_uint(buf, txn_id);
    kv_pack_uint(buf, participants);
}

void kv_put_report_done(struct kv_buf *buf, size_t done_count)
{
    kv_pack_array(buf, done_count);
}

enum kv_err kv_get_report(struct kv_slice body, struct kv_list *intents, struct kv_list *done)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 2);
    *intents = read_list(&in, INTENT);
    *done = read_list(&in, UINT);
    return kv_unpack_end(&in);
}

void kv_put_stage(struct kv_buf *buf, const struct kv_msg_stage *stage)
{
    kv_pack_array(buf, 4);
    kv_put_hash(buf, &stage->hash);
    kv_pack_uint(buf, stage->size);
    kv_pack_uint(buf, stage->codec);
    kv_pack_uint(buf, stage->stored_bytes);
}

enum kv_err kv_get_stage(struct kv_slice body, struct kv_msg_stage *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 4);
    out->hash = read_hash(&in);
    out->size = kv_unpack_uint(&in, UINT64_MAX);
    out->codec = (enum kv_codec)kv_unpack_uint(&in, KV_CODEC_MIXED);
    out->stored_bytes = kv_unpack_uint(&in, KV_STORED_BYTES_MAX);
    return kv_unpack_end(&in);
}

void kv_put_staged(struct kv_buf *buf, const struct kv_msg_staged *staged)
{
    kv_pack_array(buf, 3);
    kv_pack_uint(buf, staged->err);
    kv_pack_uint(buf, staged->object_id);
    kv_pack_bool(buf, staged->existed);
}

enum kv_err kv_get_staged(struct kv_slice body, struct kv_msg_staged *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 3);
    out->err = read_err(&in);
    out->object_id = kv_unpack_uint(&in, UINT64_MAX);
    out->existed = kv_unpack_bool(&in);
    return kv_unpack_end(&in);
}

void kv_put_stage_data(struct kv_buf *buf, const struct kv_msg_stage_data *data)
{
    kv_pack_array(buf, 3);
    kv_pack_uint(buf, data->object_id);
    kv_pack_uint(buf, data->offset);
    kv_pack_bin(buf, data->bytes);
}

enum kv_err kv_get_stage_data(struct kv_slice body, struct kv_msg_stage_data *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 3);
    out->object_id = kv_unpack_uint(&in, UINT64_MAX);
    out->offset = kv_unpack_uint(&in, KV_STORED_BYTES_MAX);
    out->bytes = kv_unpack_bin(&in, KV_PIECE_BYTES_MAX);
    return kv_unpack_end(&in);
}

void kv_put_stage_file(struct kv_buf *buf, const struct kv_msg_stage_file *piece)
{
    kv_pack_array(buf, 5);
    kv_pack_uint(buf, piece->object_id);
    kv_pack_uint(buf, piece->offset);
    kv_pack_bin(buf, piece->bytes);
    kv_pack_uint(buf, piece->file_offset);
    kv_pack_uint(buf, piece->file_bytes);
}

enum kv_err kv_get_stage_file(struct kv_slice body, struct kv_msg_stage_file *out)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 5);
    out->object_id = kv_unpack_uint(&in, UINT64_MAX);
    out->offset = kv_unpack_uint(&in, KV_STORED_BYTES_MAX);
    out->bytes = kv_unpack_bin(&in, KV_PIECE_BYTES_MAX);
    out->file_offset = kv_unpack_uint(&in, KV_STORED_BYTES_MAX);
    out->file_bytes = kv_unpack_uint(&in, KV_FILE_PIECE_BYTES_MAX);
    enum kv_err err = kv_unpack_end(&in);
    return err == KV_OK && out->file_bytes == 0 ? KV_INVALID : err;
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
    *pairs = read_list(&in, COUNTER);
    return kv_unpack_end(&in);
}
