/* tests/unit/wire/message_cases.h -- a sample body for every message of kv/msg.h, how it is written and how it is read and compared.
 * `get(body, compare)`: the verdict of kv_get_X; what was accepted is walked to its end, and compared with the sample if asked.
 * Used by test_messages.c and by the fuzz corpus. */
#ifndef KV_TESTS_MESSAGE_CASES_H
#define KV_TESTS_MESSAGE_CASES_H

#include <criterion/criterion.h>

#include "wire/messages.h"

/* A difference found while comparing; `compare` false: only decode and walk. */
#define SAME(condition)                                                                                                \
    do {                                                                                                               \
        if (compare && !(condition))                                                                                   \
            cr_assert_fail("differs after the round trip: %s", #condition);                                            \
    } while (0)
/* What passed kv_get_X can be walked, whatever the bytes were. */
#define WALK(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            cr_assert_fail("a list that was accepted cannot be walked: %s", #condition);                               \
    } while (0)

#define HASH(fill) ((struct kv_hash){{[0] = (fill), [1] = 0xc0, [30] = 0xff, [31] = (uint8_t)((fill) + 1)}})

static struct kv_slice text(const char *words)
{
    return kv_slice_text(words);
}

static bool same_hash(const struct kv_hash *a, struct kv_hash b)
{
    return kv_hash_equal(a, &b);
}

static struct kv_row sample_row(void)
{
    return (struct kv_row){.hash = HASH(3),
                           .size = 70000,
                           .created_s = 1795375800,
                           .txn_id = UINT64_MAX,
                           .content_type = text("text/plain; charset=utf-8")};
}

static bool same_row(const struct kv_row *row)
{
    struct kv_row sample = sample_row();
    return kv_hash_equal(&row->hash, &sample.hash) && row->size == sample.size && row->created_s == sample.created_s &&
           row->txn_id == sample.txn_id && kv_slice_equal(row->content_type, sample.content_type);
}

static struct kv_object sample_object(void)
{
    return (struct kv_object){.size = (uint64_t)1 << 33,
                              .stored_bytes = 12345,
                              .codec = KV_CODEC_MIXED,
                              .object_id = 77,
                              .refs = 100,
                              .held = true,
                              .bytes = text("stored bytes")};
}

static bool same_object(const struct kv_object *object)
{
    struct kv_object sample = sample_object();
    return object->size == sample.size && object->stored_bytes == sample.stored_bytes &&
           object->codec == sample.codec && object->object_id == sample.object_id && object->refs == sample.refs &&
           object->held == sample.held && kv_slice_equal(object->bytes, sample.bytes);
}

/* ---- one pair of functions per body --------------------------------------------------------------------------- */

static void put_hello(struct kv_buf *buf)
{
    kv_put_hello(buf, &(struct kv_msg_hello){1, KV_ROLE_SHARD, 3, KV_SHARDS_MAX, KV_EPOCH_MAX, 7});
}

static enum kv_err get_hello(struct kv_slice body, bool compare)
{
    struct kv_msg_hello hello;
    enum kv_err err = kv_get_hello(body, &hello);
    if (err == KV_OK)
        SAME(hello.version == 1 && hello.role == KV_ROLE_SHARD && hello.shard_index == 3 &&
             hello.shard_count == KV_SHARDS_MAX && hello.epoch == KV_EPOCH_MAX && hello.thread_index == 7);
    return err;
}

static void put_read(struct kv_buf *buf)
{
    kv_put_read(buf, &(struct kv_msg_read){text("some/key"), KV_PIECE_BYTES_MAX});
}

static enum kv_err get_read(struct kv_slice body, bool compare)
{
    struct kv_msg_read read;
    enum kv_err err = kv_get_read(body, &read);
    if (err == KV_OK)
        SAME(kv_slice_equal(read.key, text("some/key")) && read.bytes_max == KV_PIECE_BYTES_MAX);
    return err;
}

static void put_row(struct kv_buf *buf)
{
    kv_put_row(buf, &(struct kv_msg_row){KV_OK, true, sample_row(), true, sample_object()});
}

static enum kv_err get_row(struct kv_slice body, bool compare)
{
    struct kv_msg_row row;
    enum kv_err err = kv_get_row(body, &row);
    if (err == KV_OK)
        SAME(row.err == KV_OK && row.has_row && row.has_object && same_row(&row.row) && same_object(&row.object));
    return err;
}

static void put_row_empty(struct kv_buf *buf)
{
    kv_put_row(buf, &(struct kv_msg_row){.err = KV_NOT_FOUND});
}

static enum kv_err get_row_empty(struct kv_slice body, bool compare)
{
    struct kv_msg_row row;
    enum kv_err err = kv_get_row(body, &row);
    if (err == KV_OK)
        SAME(row.err == KV_NOT_FOUND && !row.has_row && !row.has_object);
    return err;
}

static void put_open(struct kv_buf *buf)
{
    kv_put_open(buf, &(struct kv_msg_open){.hash = HASH(9), .bytes_max = 4096});
}

static enum kv_err get_open(struct kv_slice body, bool compare)
{
    struct kv_msg_open open;
    enum kv_err err = kv_get_open(body, &open);
    if (err == KV_OK)
        SAME(same_hash(&open.hash, HASH(9)) && open.bytes_max == 4096 && !open.slot.named);
    return err;
}

static void put_open_in_slot(struct kv_buf *buf)
{
    kv_put_open(buf, &(struct kv_msg_open){HASH(9), KV_SLOT_BYTES_MAX, {true, 3}});
}

static enum kv_err get_open_in_slot(struct kv_slice body, bool compare)
{
    struct kv_msg_open open;
    enum kv_err err = kv_get_open(body, &open);
    if (err == KV_OK)
        SAME(open.bytes_max == KV_SLOT_BYTES_MAX && open.slot.named && open.slot.first == 3);
    return err;
}

static void put_object(struct kv_buf *buf)
{
    kv_put_object(buf, &(struct kv_msg_object){.object = sample_object(), .slot_bytes = 5});
}

static enum kv_err get_object(struct kv_slice body, bool compare)
{
    struct kv_msg_object object;
    enum kv_err err = kv_get_object(body, &object);
    if (err == KV_OK)
        SAME(object.err == KV_OK && same_object(&object.object) && object.slot_bytes == 5);
    return err;
}

static void put_object_missing(struct kv_buf *buf)
{
    kv_put_object(buf, &(struct kv_msg_object){.err = KV_NOT_FOUND, .object = sample_object()});
}

static enum kv_err get_object_missing(struct kv_slice body, bool compare)
{
    struct kv_msg_object object;
    enum kv_err err = kv_get_object(body, &object);
    if (err == KV_OK)
        SAME(object.err == KV_NOT_FOUND);
    return err;
}

static void put_fetch(struct kv_buf *buf)
{
    kv_put_fetch(buf, &(struct kv_msg_fetch){.object_id = UINT64_MAX, .offset = KV_STORED_BYTES_MAX, .bytes_max = 1});
}

static enum kv_err get_fetch(struct kv_slice body, bool compare)
{
    struct kv_msg_fetch fetch;
    enum kv_err err = kv_get_fetch(body, &fetch);
    if (err == KV_OK)
        SAME(fetch.object_id == UINT64_MAX && fetch.offset == KV_STORED_BYTES_MAX && fetch.bytes_max == 1 &&
             !fetch.slot.named);
    return err;
}

static void put_fetch_in_slot(struct kv_buf *buf)
{
    kv_put_fetch(buf, &(struct kv_msg_fetch){1, 2, KV_ARENA_UNIT_BYTES, {true, KV_ARENA_UNITS - 1}});
}

static enum kv_err get_fetch_in_slot(struct kv_slice body, bool compare)
{
    struct kv_msg_fetch fetch;
    enum kv_err err = kv_get_fetch(body, &fetch);
    if (err == KV_OK)
        SAME(fetch.object_id == 1 && fetch.offset == 2 && fetch.bytes_max == KV_ARENA_UNIT_BYTES && fetch.slot.named &&
             fetch.slot.first == KV_ARENA_UNITS - 1);
    return err;
}

static void put_piece(struct kv_buf *buf)
{
    kv_put_piece(buf, &(struct kv_msg_piece){.err = KV_CORRUPT, .bytes = text("piece")});
}

static enum kv_err get_piece(struct kv_slice body, bool compare)
{
    struct kv_msg_piece piece;
    enum kv_err err = kv_get_piece(body, &piece);
    if (err == KV_OK)
        SAME(piece.err == KV_CORRUPT && !piece.in_slot && kv_slice_equal(piece.bytes, text("piece")));
    return err;
}

static void put_piece_in_slot(struct kv_buf *buf)
{
    kv_put_piece(buf, &(struct kv_msg_piece){.in_slot = true, .slot_bytes = KV_SLOT_BYTES_MAX});
}

static enum kv_err get_piece_in_slot(struct kv_slice body, bool compare)
{
    struct kv_msg_piece piece;
    enum kv_err err = kv_get_piece(body, &piece);
    if (err == KV_OK)
        SAME(piece.err == KV_OK && piece.in_slot && piece.slot_bytes == KV_SLOT_BYTES_MAX && piece.bytes.bytes == 0);
    return err;
}

static void put_id(struct kv_buf *buf)
{
    kv_put_id(buf, 0x0102030405060708u);
}

static enum kv_err get_id(struct kv_slice body, bool compare)
{
    uint64_t id;
    enum kv_err err = kv_get_id(body, &id);
    if (err == KV_OK)
        SAME(id == 0x0102030405060708u);
    return err;
}

static void put_done(struct kv_buf *buf)
{
    kv_put_done(buf, KV_CANCELLED);
}

static enum kv_err get_done(struct kv_slice body, bool compare)
{
    enum kv_err done;
    enum kv_err err = kv_get_done(body, &done);
    if (err == KV_OK)
        SAME(done == KV_CANCELLED);
    return err;
}

static enum kv_err get_empty(struct kv_slice body, bool compare)
{
    (void)compare;
    return kv_get_empty(body);
}

static void put_refs(struct kv_buf *buf)
{
    struct kv_hash first = HASH(1), second = HASH(2);
    kv_put_refs_begin(buf, 2);
    kv_put_hash(buf, &first);
    kv_put_hash(buf, &second);
}

static enum kv_err get_refs(struct kv_slice body, bool compare)
{
    struct kv_list hashes;
    struct kv_hash hash;
    enum kv_err err = kv_get_refs(body, &hashes);
    if (err != KV_OK)
        return err;
    SAME(hashes.count == 2);
    for (unsigned i = 0; hashes.count > 0; i++) {
        WALK(kv_next_hash(&hashes, &hash));
        SAME(same_hash(&hash, HASH((uint8_t)(i + 1))));
    }
    WALK(!kv_next_hash(&hashes, &hash) && hashes.encoded.bytes == 0);
    return KV_OK;
}

static void put_counts(struct kv_buf *buf)
{
    kv_put_counts_begin(buf, KV_OK, 3);
    for (unsigned i = 0; i < 3; i++)
        kv_pack_uint(buf, i * 200);
}

static enum kv_err get_counts(struct kv_slice body, bool compare)
{
    struct kv_list numbers;
    enum kv_err answer;
    uint64_t number;
    enum kv_err err = kv_get_counts(body, &answer, &numbers);
    if (err != KV_OK)
        return err;
    SAME(answer == KV_OK && numbers.count == 3);
    for (unsigned i = 0; numbers.count > 0; i++) {
        WALK(kv_next_uint(&numbers, &number));
        SAME(number == i * 200);
    }
    WALK(!kv_next_uint(&numbers, &number) && numbers.encoded.bytes == 0);
    return KV_OK;
}

static void put_list(struct kv_buf *buf)
{
    kv_put_list(buf, &(struct kv_msg_list){text("after"), true, text("pre"), text("/"), KV_LIST_LIMIT_MAX});
}

static enum kv_err get_list(struct kv_slice body, bool compare)
{
    struct kv_msg_list list;
    enum kv_err err = kv_get_list(body, &list);
    if (err == KV_OK)
        SAME(kv_slice_equal(list.after, text("after")) && list.inclusive && kv_slice_equal(list.prefix, text("pre")) &&
             kv_slice_equal(list.delimiter, text("/")) && list.limit == KV_LIST_LIMIT_MAX);
    return err;
}

static void put_page(struct kv_buf *buf)
{
    struct kv_row row = sample_row();
    kv_put_page_begin(buf, &(struct kv_msg_page){KV_OK, true, (uint64_t)1 << 40, {.count = 2}, text("c")});
    kv_put_page_entry(buf, text("a/"), NULL);
    kv_put_page_entry(buf, text("b"), &row);
}

static enum kv_err get_page(struct kv_slice body, bool compare)
{
    struct kv_msg_page page;
    bool has_row;
    struct kv_slice key;
    struct kv_row row;
    enum kv_err err = kv_get_page(body, &page);
    if (err != KV_OK)
        return err;
    SAME(page.err == KV_OK && page.more && page.keys == (uint64_t)1 << 40 && page.entries.count == 2 &&
         kv_slice_equal(page.resume, text("c")));
    for (unsigned i = 0; page.entries.count > 0; i++) {
        WALK(kv_next_page_entry(&page.entries, &key, &has_row, &row));
        SAME(kv_slice_equal(key, text(i == 0 ? "a/" : "b")) && has_row == (i == 1) && (i == 0 || same_row(&row)));
    }
    WALK(!kv_next_page_entry(&page.entries, &key, &has_row, &row) && page.entries.encoded.bytes == 0);
    return KV_OK;
}

static void put_lock(struct kv_buf *buf)
{
    kv_put_lock_begin(buf, kv_txn_id(5, 6), 2);
    kv_put_key(buf, text("k1"));
    kv_put_key(buf, text("k2"));
}

static enum kv_err get_lock(struct kv_slice body, bool compare)
{
    struct kv_list keys;
    struct kv_slice key;
    uint64_t txn_id;
    enum kv_err err = kv_get_lock(body, &txn_id, &keys);
    if (err != KV_OK)
        return err;
    SAME(kv_txn_epoch(txn_id) == 5 && txn_id == kv_txn_id(5, 6) && keys.count == 2);
    for (unsigned i = 0; keys.count > 0; i++) {
        WALK(kv_next_key(&keys, &key));
        SAME(kv_slice_equal(key, text(i == 0 ? "k1" : "k2")));
    }
    WALK(!kv_next_key(&keys, &key) && keys.encoded.bytes == 0);
    return KV_OK;
}

static void put_locked(struct kv_buf *buf)
{
    struct kv_row row = sample_row();
    kv_put_locked_begin(buf, KV_OK, 2);
    kv_put_row_or_nil(buf, NULL);
    kv_put_row_or_nil(buf, &row);
}

static enum kv_err get_locked(struct kv_slice body, bool compare)
{
    struct kv_list rows;
    enum kv_err answer;
    bool present;
    struct kv_row row;
    enum kv_err err = kv_get_locked(body, &answer, &rows);
    if (err != KV_OK)
        return err;
    SAME(answer == KV_OK && rows.count == 2);
    for (unsigned i = 0; rows.count > 0; i++) {
        WALK(kv_next_row(&rows, &present, &row));
        SAME(present == (i == 1) && (i == 0 || same_row(&row)));
    }
    WALK(!kv_next_row(&rows, &present, &row) && rows.encoded.bytes == 0);
    return KV_OK;
}

static const struct kv_op *sample_ops(size_t *count)
{
    static struct kv_op ops[7];
    ops[0] = (struct kv_op){.kind = KV_OP_SET, .key = text("set"), .expect_txn = 0, .row = sample_row()};
    ops[1] = (struct kv_op){.kind = KV_OP_CLEAR, .key = text("clear"), .expect_txn = 300};
    ops[2] = (struct kv_op){.kind = KV_OP_CHECK, .key = text("check"), .expect_txn = UINT64_MAX};
    ops[3] = (struct kv_op){.kind = KV_OP_ADD,
                            .hash = HASH(4),
                            .count = 1,
                            .size = 9,
                            .codec = KV_CODEC_ZSTD,
                            .has_bytes = true,
                            .stored_bytes = 6,
                            .bytes = text("stored")};
    ops[4] = (struct kv_op){.kind = KV_OP_ADD,
                            .hash = HASH(5),
                            .count = UINT32_MAX,
                            .size = (uint64_t)1 << 40,
                            .codec = KV_CODEC_MIXED,
                            .object_id = UINT64_MAX,
                            .stored_bytes = KV_STORED_BYTES_MAX};
    ops[5] = (struct kv_op){.kind = KV_OP_ADD, .hash = HASH(6), .count = 2, .has_bytes = true};
    ops[6] = (struct kv_op){.kind = KV_OP_DROP, .hash = HASH(7), .count = 70000};
    *count = sizeof ops / sizeof *ops;
    return ops;
}

static bool same_op(const struct kv_op *op, const struct kv_op *sample)
{
    if (op->kind != sample->kind)
        return false;
    if (kv_op_is_on_key(op))
        return kv_slice_equal(op->key, sample->key) && op->expect_txn == sample->expect_txn &&
               (op->kind != KV_OP_SET || same_row(&op->row));
    return kv_hash_equal(&op->hash, &sample->hash) && op->count == sample->count && op->size == sample->size &&
           op->codec == sample->codec && op->object_id == sample->object_id &&
           op->stored_bytes == sample->stored_bytes && op->has_bytes == sample->has_bytes &&
           kv_slice_equal(op->bytes, sample->bytes);
}

static void put_prepare(struct kv_buf *buf)
{
    size_t count;
    const struct kv_op *ops = sample_ops(&count);
    kv_put_prepare_begin(buf, kv_txn_id(KV_EPOCH_MAX, 1), kv_shard_bit(0) | kv_shard_bit(63), count);
    for (size_t i = 0; i < count; i++)
        kv_put_op(buf, &ops[i]);
}

static bool same_prepare(const struct kv_msg_prepare *prepare)
{
    size_t count;
    const struct kv_op *ops = sample_ops(&count);
    bool same = prepare->txn_id == kv_txn_id(KV_EPOCH_MAX, 1) &&
                prepare->participants == (kv_shard_bit(0) | kv_shard_bit(63)) && prepare->ops.count == count;
    for (size_t i = 0; same && i < count; i++)
        same = same_op(&prepare->ops.at[i], &ops[i]);
    return same;
}

/* A look ahead finds the operations that decoding finds. `decoded` is NULL when the body is malformed: then it only has to end. */
static bool same_ahead(struct kv_slice body, const struct kv_ops *decoded)
{
    struct kv_list ops = {.count = 0};
    struct kv_op op;
    size_t count = 0;
    bool same = kv_peek_prepare_ops(body, &ops) == KV_OK;
    for (; kv_next_op(&ops, &op); count++)
        same = same && (decoded == NULL || (count < decoded->count && same_op(&op, &decoded->at[count])));
    return decoded == NULL || (same && count == decoded->count);
}

static enum kv_err get_prepare(struct kv_slice body, bool compare)
{
    struct kv_msg_prepare prepare = {0};
    enum kv_err err = kv_get_prepare(body, &prepare);
    bool same =
        same_ahead(body, err == KV_OK ? &prepare.ops : NULL) && (err != KV_OK || !compare || same_prepare(&prepare));
    kv_ops_free(&prepare.ops);
    SAME(same);
    return err;
}

static void put_vote(struct kv_buf *buf)
{
    kv_put_vote_begin(buf, KV_OK, 2);
    kv_pack_bool(buf, true);
    kv_pack_bool(buf, false);
}

static enum kv_err get_vote(struct kv_slice body, bool compare)
{
    struct kv_list flags;
    enum kv_err answer;
    bool flag;
    enum kv_err err = kv_get_vote(body, &answer, &flags);
    if (err != KV_OK)
        return err;
    SAME(answer == KV_OK && flags.count == 2);
    for (unsigned i = 0; flags.count > 0; i++) {
        WALK(kv_next_bool(&flags, &flag));
        SAME(flag == (i == 0));
    }
    WALK(!kv_next_bool(&flags, &flag) && flags.encoded.bytes == 0);
    return KV_OK;
}

static void put_forget(struct kv_buf *buf)
{
    kv_put_forget_begin(buf, 5, UINT64_MAX, 2);
    kv_pack_uint(buf, 7);
    kv_pack_uint(buf, UINT64_MAX - 1);
}

static enum kv_err get_forget(struct kv_slice body, bool compare)
{
    uint64_t from_txn_id, below_txn_id, txn_id = 0;
    struct kv_list open;
    enum kv_err err = kv_get_forget(body, &from_txn_id, &below_txn_id, &open);
    if (err != KV_OK)
        return err;
    SAME(from_txn_id == 5 && below_txn_id == UINT64_MAX && open.count == 2);
    for (unsigned i = 0; open.count > 0; i++) {
        WALK(kv_next_uint(&open, &txn_id));
        SAME(txn_id == (i == 0 ? 7 : UINT64_MAX - 1));
    }
    WALK(!kv_next_uint(&open, &txn_id) && open.encoded.bytes == 0);
    return KV_OK;
}

static void put_report(struct kv_buf *buf)
{
    kv_put_report_begin(buf, 2);
    kv_put_report_intent(buf, 10, 3);
    kv_put_report_intent(buf, 11, UINT64_MAX);
    kv_put_report_done(buf, 1);
    kv_pack_uint(buf, 9);
}

static enum kv_err get_report(struct kv_slice body, bool compare)
{
    struct kv_list intents, done;
    uint64_t txn_id;
    kv_shard_set participants;
    enum kv_err err = kv_get_report(body, &intents, &done);
    if (err != KV_OK)
        return err;
    SAME(intents.count == 2 && done.count == 1);
    for (unsigned i = 0; intents.count > 0; i++) {
        WALK(kv_next_report_intent(&intents, &txn_id, &participants));
        SAME(txn_id == 10 + i && participants == (i == 0 ? 3 : UINT64_MAX));
    }
    while (done.count > 0) {
        WALK(kv_next_uint(&done, &txn_id));
        SAME(txn_id == 9);
    }
    WALK(!kv_next_report_intent(&intents, &txn_id, &participants) && !kv_next_uint(&done, &txn_id));
    return KV_OK;
}

static void put_stage(struct kv_buf *buf)
{
    kv_put_stage(buf, &(struct kv_msg_stage){HASH(8), 1000000, KV_CODEC_ZSTD, 400000});
}

static enum kv_err get_stage(struct kv_slice body, bool compare)
{
    struct kv_msg_stage stage;
    enum kv_err err = kv_get_stage(body, &stage);
    if (err == KV_OK)
        SAME(same_hash(&stage.hash, HASH(8)) && stage.size == 1000000 && stage.codec == KV_CODEC_ZSTD &&
             stage.stored_bytes == 400000);
    return err;
}

static void put_staged(struct kv_buf *buf)
{
    kv_put_staged(buf, &(struct kv_msg_staged){KV_OK, 42, true});
}

static enum kv_err get_staged(struct kv_slice body, bool compare)
{
    struct kv_msg_staged staged;
    enum kv_err err = kv_get_staged(body, &staged);
    if (err == KV_OK)
        SAME(staged.err == KV_OK && staged.object_id == 42 && staged.existed);
    return err;
}

static void put_stage_data(struct kv_buf *buf)
{
    kv_put_stage_data(buf, &(struct kv_msg_stage_data){42, 1048576, text("piece of content")});
}

static enum kv_err get_stage_data(struct kv_slice body, bool compare)
{
    struct kv_msg_stage_data data;
    enum kv_err err = kv_get_stage_data(body, &data);
    if (err == KV_OK)
        SAME(data.object_id == 42 && data.offset == 1048576 && kv_slice_equal(data.bytes, text("piece of content")));
    return err;
}

static void put_stage_file(struct kv_buf *buf)
{
    kv_put_stage_file(buf, &(struct kv_msg_stage_file){42, 1048576, text("the index"), 77, KV_FILE_PIECE_BYTES_MAX});
}

static enum kv_err get_stage_file(struct kv_slice body, bool compare)
{
    struct kv_msg_stage_file piece;
    enum kv_err err = kv_get_stage_file(body, &piece);
    if (err == KV_OK)
        SAME(piece.object_id == 42 && piece.offset == 1048576 && kv_slice_equal(piece.bytes, text("the index")) &&
             piece.file_offset == 77 && piece.file_bytes == KV_FILE_PIECE_BYTES_MAX);
    return err;
}

static void put_counters(struct kv_buf *buf)
{
    kv_put_counters_begin(buf, 2);
    kv_put_counter(buf, "keys", 5);
    kv_put_counter(buf, "", UINT64_MAX);
}

static enum kv_err get_counters(struct kv_slice body, bool compare)
{
    struct kv_list pairs;
    struct kv_slice name;
    uint64_t value;
    enum kv_err err = kv_get_counters(body, &pairs);
    if (err != KV_OK)
        return err;
    SAME(pairs.count == 2);
    for (unsigned i = 0; pairs.count > 0; i++) {
        WALK(kv_next_counter(&pairs, &name, &value));
        SAME(kv_slice_equal(name, text(i == 0 ? "keys" : "")) && value == (i == 0 ? 5 : UINT64_MAX));
    }
    WALK(!kv_next_counter(&pairs, &name, &value) && pairs.encoded.bytes == 0);
    return KV_OK;
}

/* ---- the cases ------------------------------------------------------------------------------------------------ */

struct message_case {
    enum kv_msg type;
    void (*put)(struct kv_buf *buf);
    enum kv_err (*get)(struct kv_slice body, bool compare);
};

static const struct message_case cases[] = {
    {KV_MSG_HELLO, put_hello, get_hello},
    {KV_MSG_READ, put_read, get_read},
    {KV_MSG_ROW, put_row, get_row},
    {KV_MSG_ROW, put_row_empty, get_row_empty},
    {KV_MSG_OPEN, put_open, get_open},
    {KV_MSG_OBJECT, put_object, get_object},
    {KV_MSG_OBJECT, put_object_missing, get_object_missing},
    {KV_MSG_FETCH, put_fetch, get_fetch},
    {KV_MSG_FETCH, put_fetch_in_slot, get_fetch_in_slot},
    {KV_MSG_PIECE, put_piece, get_piece},
    {KV_MSG_PIECE, put_piece_in_slot, get_piece_in_slot},
    {KV_MSG_ARENA, kv_put_empty, get_empty},
    {KV_MSG_CLOSE, put_id, get_id},
    {KV_MSG_REFS, put_refs, get_refs},
    {KV_MSG_COUNTS, put_counts, get_counts},
    {KV_MSG_LIST, put_list, get_list},
    {KV_MSG_PAGE, put_page, get_page},
    {KV_MSG_LOCK, put_lock, get_lock},
    {KV_MSG_LOCKED, put_locked, get_locked},
    {KV_MSG_PREPARE, put_prepare, get_prepare},
    {KV_MSG_APPLY, put_prepare, get_prepare},
    {KV_MSG_VOTE, put_vote, get_vote},
    {KV_MSG_COMMIT, put_id, get_id},
    {KV_MSG_ABORT, put_id, get_id},
    {KV_MSG_RELEASE, put_id, get_id},
    {KV_MSG_DONE, put_done, get_done},
    {KV_MSG_FORGET, put_forget, get_forget},
    {KV_MSG_RECOVER, kv_put_empty, get_empty},
    {KV_MSG_REPORT, put_report, get_report},
    {KV_MSG_STAGE, put_stage, get_stage},
    {KV_MSG_STAGED, put_staged, get_staged},
    {KV_MSG_STAGE_DATA, put_stage_data, get_stage_data},
    {KV_MSG_STAGE_DROP, put_id, get_id},
    {KV_MSG_STAGE_FILE, put_stage_file, get_stage_file},
    {KV_MSG_STATS, kv_put_empty, get_empty},
    {KV_MSG_COUNTERS, put_counters, get_counters},
    {KV_MSG_OPEN, put_open_in_slot, get_open_in_slot},
};
#define CASE_COUNT (sizeof cases / sizeof *cases)

#endif
