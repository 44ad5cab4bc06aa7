/* shard/wire/messages_txn.c -- see messages.h: the bodies of writes, that is of transactions and of the contents staged for
 * them, in the order of the message table. */
#include "wire/elements.h"

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
    *open = kv_read_list(&in, KV_ELEMENT_UINT);
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
    *keys = kv_read_list(&in, KV_ELEMENT_KEY);
    return kv_unpack_end(&in);
}

void kv_put_locked_begin(struct kv_buf *buf, enum kv_err err, size_t count)
{
    kv_put_err_and_list(buf, err, count);
}

enum kv_err kv_get_locked(struct kv_slice body, enum kv_err *err, struct kv_list *rows)
{
    return kv_get_err_and_list(body, KV_ELEMENT_ROW, err, rows);
}

void kv_put_prepare_begin(struct kv_buf *buf, uint64_t txn_id, kv_shard_set participants, size_t count)
{
    kv_pack_array(buf, 3);
    kv_pack_uint(buf, txn_id);
    kv_pack_uint(buf, participants);
    kv_pack_array(buf, count);
}

void kv_put_prepare(struct kv_buf *buf, const struct kv_msg_prepare *prepare)
{
    kv_put_prepare_begin(buf, prepare->txn_id, prepare->participants, prepare->ops.count);
    for (size_t i = 0; i < prepare->ops.count; i++)
        kv_put_op(buf, &prepare->ops.at[i]);
}

/* What comes behind it are the operations. */
static struct kv_unpack read_prepare_begin(struct kv_slice body, uint64_t *txn_id, kv_shard_set *participants)
{
    struct kv_unpack in = kv_unpack_start(body);
    kv_unpack_array_of(&in, 3);
    *txn_id = kv_unpack_uint(&in, UINT64_MAX);
    *participants = kv_unpack_uint(&in, UINT64_MAX);
    return in;
}

enum kv_err kv_get_prepare(struct kv_slice body, struct kv_msg_prepare *out)
{
    struct kv_unpack in = read_prepare_begin(body, &out->txn_id, &out->participants);
    kv_read_ops(&in, &out->ops);
    return kv_unpack_end(&in);
}

enum kv_err kv_peek_prepare_ops(struct kv_slice body, struct kv_list *ops)
{
    uint64_t txn_id;
    kv_shard_set participants;
    struct kv_unpack in = read_prepare_begin(body, &txn_id, &participants);
    ops->count = kv_unpack_array(&in, KV_TXN_OPS_MAX);
    ops->encoded = kv_slice(in.at, (size_t)(in.end - in.at));
    return in.bad ? KV_INVALID : KV_OK;
}

void kv_put_vote_begin(struct kv_buf *buf, enum kv_err err, size_t count)
{
    kv_put_err_and_list(buf, err, count);
}

enum kv_err kv_get_vote(struct kv_slice body, enum kv_err *err, struct kv_list *existed)
{
    return kv_get_err_and_list(body, KV_ELEMENT_BOOL, err, existed);
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
    *intents = kv_read_list(&in, KV_ELEMENT_INTENT);
    *done = kv_read_list(&in, KV_ELEMENT_UINT);
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
    out->hash = kv_read_hash(&in);
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
    out->err = kv_read_err(&in);
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
