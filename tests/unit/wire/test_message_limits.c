/* Goal: every limit and every form of the bodies holds exactly where limits.h and msg.h put it.
 * Method: values at the limit and one beyond; operations of every kind with every number of members; claimed counts that no
 * memory could hold. The well-formed bodies themselves are test_messages.c's. */
#include <criterion/criterion.h>

#include "wire/messages.h"

#define HASH(fill) ((struct kv_hash){{[0] = (fill), [31] = 0xff}})

static struct kv_slice text(const char *words)
{
    return kv_slice_text(words);
}

static enum kv_err read_with_key(size_t key_bytes)
{
    static uint8_t key[KV_KEY_BYTES_MAX + 1];
    memset(key, 'k', sizeof key);
    struct kv_buf buf = {0};
    kv_put_read(&buf, &(struct kv_msg_read){kv_slice(key, key_bytes), 0});
    struct kv_msg_read read;
    enum kv_err err = kv_get_read(kv_buf_peek(&buf), &read);
    cr_expect(err != KV_OK || read.key.bytes == key_bytes);
    kv_buf_free(&buf);
    return err;
}

Test(message_limits, key_limits)
{
    cr_expect_eq(read_with_key(0), KV_INVALID);
    cr_expect_eq(read_with_key(1), KV_OK);
    cr_expect_eq(read_with_key(KV_KEY_BYTES_MAX), KV_OK);
    cr_expect_eq(read_with_key(KV_KEY_BYTES_MAX + 1), KV_INVALID);
}

static enum kv_err list_with(size_t after_bytes, size_t prefix_bytes, const char *delimiter, uint64_t limit)
{
    static uint8_t bytes[KV_KEY_BYTES_MAX + 2];
    struct kv_buf buf = {0};
    kv_put_list(&buf, &(struct kv_msg_list){kv_slice(bytes, after_bytes), false, kv_slice(bytes, prefix_bytes),
                                            kv_slice_text(delimiter), limit});
    struct kv_msg_list list;
    enum kv_err err = kv_get_list(kv_buf_peek(&buf), &list);
    kv_buf_free(&buf);
    return err;
}

Test(message_limits, list_limits)
{
    cr_expect_eq(list_with(0, 0, "", 1), KV_OK);
    cr_expect_eq(list_with(KV_KEY_BYTES_MAX, KV_KEY_BYTES_MAX, "\xf0\x9f\x98\x80", KV_LIST_LIMIT_MAX), KV_OK);
    cr_expect_eq(list_with(0, 0, "", 0), KV_INVALID);
    cr_expect_eq(list_with(KV_KEY_BYTES_MAX + 2, 0, "", 1), KV_INVALID);
    cr_expect_eq(list_with(0, KV_KEY_BYTES_MAX + 1, "", 1), KV_INVALID);
    cr_expect_eq(list_with(0, 0, "five!", 1), KV_INVALID);
    cr_expect_eq(list_with(0, 0, "", (uint64_t)UINT32_MAX + 1), KV_INVALID);
}

static enum kv_err take_prepare(struct kv_buf *buf)
{
    struct kv_msg_prepare prepare = {0};
    enum kv_err err = kv_get_prepare(kv_buf_peek(buf), &prepare);
    kv_ops_free(&prepare.ops);
    kv_buf_free(buf);
    return err;
}

static enum kv_err prepare_with(const struct kv_op *op)
{
    struct kv_buf buf = {0};
    kv_put_prepare_begin(&buf, 1, 1, 1);
    kv_put_op(&buf, op);
    return take_prepare(&buf);
}

Test(message_limits, op_limits)
{
    static uint8_t space[KV_INLINE_BYTES_MAX + 1];
    struct kv_op add = {.kind = KV_OP_ADD, .hash = HASH(1), .count = 1, .has_bytes = true};
    add.bytes = kv_slice(space, add.stored_bytes = KV_INLINE_BYTES_MAX);
    cr_expect_eq(prepare_with(&add), KV_OK);
    add.bytes = kv_slice(space, add.stored_bytes = KV_INLINE_BYTES_MAX + 1);
    cr_expect_eq(prepare_with(&add), KV_INVALID, "larger contents are staged");
    add.bytes = kv_slice(space, KV_INLINE_BYTES_MAX - 1);
    cr_expect_eq(prepare_with(&add), KV_INVALID, "bytes are the complete stored form");
    add.has_bytes = false;
    cr_expect_eq(prepare_with(&add), KV_OK);
    add.stored_bytes = KV_STORED_BYTES_MAX + 1;
    cr_expect_eq(prepare_with(&add), KV_INVALID);
    add.stored_bytes = 1;
    add.count = 0;
    cr_expect_eq(prepare_with(&add), KV_INVALID, "no references");
    add.count = (uint64_t)UINT32_MAX + 1;
    cr_expect_eq(prepare_with(&add), KV_INVALID);
    struct kv_op set = {.kind = KV_OP_SET, .key = text("k"), .row = {.size = 1}};
    set.row.content_type = kv_slice(space, KV_CONTENT_TYPE_BYTES_MAX);
    cr_expect_eq(prepare_with(&set), KV_OK);
    set.row.content_type = kv_slice(space, KV_CONTENT_TYPE_BYTES_MAX + 1);
    cr_expect_eq(prepare_with(&set), KV_INVALID);
}

/* An op as [kind, members…] with `members` nils or zeros behind the kind: no form but the five is an op. */
static enum kv_err prepare_with_form(unsigned kind, unsigned members)
{
    struct kv_buf buf = {0};
    kv_put_prepare_begin(&buf, 1, 1, 1);
    kv_pack_array(&buf, members);
    for (unsigned i = 0; i < members; i++) {
        if (i == 0)
            kv_pack_uint(&buf, kind);
        else if (i == 1)
            kv_pack_bin(&buf, kv_slice("0123456789abcdef0123456789abcdef", 32)); /* a key and a hash alike */
        else
            kv_pack_uint(&buf, 1);
    }
    return take_prepare(&buf);
}

Test(message_limits, op_forms)
{
    for (unsigned kind = 0; kind < 10; kind++) {
        for (unsigned members = 0; members < 10; members++) {
            bool good = members == 3 && (kind == KV_OP_CLEAR || kind == KV_OP_CHECK || kind == KV_OP_DROP);
            cr_expect_eq(prepare_with_form(kind, members), good ? KV_OK : KV_INVALID, "kind %u, %u members", kind,
                         members);
        }
    }
}

Test(message_limits, set_needs_its_row)
{
    struct kv_buf buf = {0};
    kv_put_prepare_begin(&buf, 1, 1, 1);
    kv_pack_array(&buf, 4);
    kv_pack_uint(&buf, KV_OP_SET);
    kv_put_key(&buf, text("k"));
    kv_pack_uint(&buf, 0);
    kv_pack_nil(&buf);
    cr_expect_eq(take_prepare(&buf), KV_INVALID);
}

static enum kv_err prepare_of(size_t count)
{
    struct kv_buf buf = {0};
    struct kv_op check = {.kind = KV_OP_CHECK, .key = text("k")};
    kv_put_prepare_begin(&buf, 1, 1, count);
    for (size_t i = 0; i < count; i++)
        kv_put_op(&buf, &check);
    return take_prepare(&buf);
}

Test(message_limits, ops_of_a_transaction)
{
    cr_expect_eq(prepare_of(KV_TXN_OPS_MAX), KV_OK);
    cr_expect_eq(prepare_of(KV_TXN_OPS_MAX + 1), KV_INVALID, "no batch makes as many");
}

static enum kv_err object_with(enum kv_err answer, bool has_object)
{
    struct kv_buf buf = {0};
    kv_pack_array(&buf, 3);
    kv_pack_uint(&buf, answer);
    if (has_object) {
        struct kv_buf whole = {0};
        kv_put_object(&whole, &(struct kv_msg_object){.object = {.size = 1, .stored_bytes = 2, .object_id = 3}});
        kv_buf_append(&buf, kv_slice(whole.data + 2, whole.bytes - 2)); /* without its own head and error */
        kv_buf_free(&whole);
    } else {
        kv_pack_nil(&buf);
        kv_pack_uint(&buf, 0); /* in a slot */
    }
    struct kv_msg_object object;
    enum kv_err err = kv_get_object(kv_buf_peek(&buf), &object);
    kv_buf_free(&buf);
    return err;
}

Test(message_limits, object_is_there_exactly_when_ok)
{
    cr_expect_eq(object_with(KV_OK, true), KV_OK);
    cr_expect_eq(object_with(KV_NOT_FOUND, false), KV_OK);
    cr_expect_eq(object_with(KV_OK, false), KV_INVALID);
    cr_expect_eq(object_with(KV_NOT_FOUND, true), KV_INVALID);
}

static enum kv_err hello_with(uint64_t role, uint64_t index, uint64_t count, uint64_t epoch)
{
    struct kv_buf buf = {0};
    kv_put_hello(&buf, &(struct kv_msg_hello){999, (enum kv_role)role, index, count, epoch, 0});
    struct kv_msg_hello hello;
    enum kv_err err = kv_get_hello(kv_buf_peek(&buf), &hello);
    cr_expect(err != KV_OK || hello.version == 999, "a foreign version is read, so that it can be named");
    kv_buf_free(&buf);
    return err;
}

Test(message_limits, hello_limits)
{
    cr_expect_eq(hello_with(KV_ROLE_ROUTER, 0, 1, 1), KV_OK);
    cr_expect_eq(hello_with(KV_ROLE_SHARD, KV_SHARDS_MAX - 1, KV_SHARDS_MAX, KV_EPOCH_MAX), KV_OK);
    cr_expect_eq(hello_with(KV_ROLE_SHARD + 1, 0, 1, 1), KV_INVALID);
    cr_expect_eq(hello_with(KV_ROLE_SHARD, 0, KV_SHARDS_MAX + 1, 1), KV_INVALID);
    cr_expect_eq(hello_with(KV_ROLE_SHARD, 0, 1, KV_EPOCH_MAX + 1), KV_INVALID);
}

static enum kv_err stage_file_with(uint64_t file_bytes)
{
    struct kv_buf buf = {0};
    struct kv_msg_stage_file piece = {.object_id = 1, .file_bytes = file_bytes}, got;
    kv_put_stage_file(&buf, &piece);
    enum kv_err err = kv_get_stage_file(kv_buf_peek(&buf), &got);
    kv_buf_free(&buf);
    return err;
}

Test(message_limits, a_piece_of_a_file)
{
    cr_expect_eq(KV_FILE_PIECE_BYTES_MAX % KV_BLOB_ROW_BYTES, 0u, "pieces follow each other");
    cr_expect_eq(stage_file_with(0), KV_INVALID);
    cr_expect_eq(stage_file_with(1), KV_OK);
    cr_expect_eq(stage_file_with(KV_FILE_PIECE_BYTES_MAX), KV_OK);
    cr_expect_eq(stage_file_with(KV_FILE_PIECE_BYTES_MAX + 1), KV_INVALID);
}

static enum kv_err fetch_with(uint64_t bytes_max, bool named, uint64_t first)
{
    struct kv_buf buf = {0};
    struct kv_msg_fetch fetch = {.object_id = 1, .bytes_max = bytes_max, .slot = {named, first}}, got;
    kv_put_fetch(&buf, &fetch);
    enum kv_err err = kv_get_fetch(kv_buf_peek(&buf), &got);
    kv_buf_free(&buf);
    return err;
}

static enum kv_err open_with(uint64_t bytes_max, uint64_t first)
{
    struct kv_buf buf = {0};
    struct kv_msg_open got;
    kv_put_open(&buf, &(struct kv_msg_open){.bytes_max = bytes_max, .slot = {true, first}});
    enum kv_err err = kv_get_open(kv_buf_peek(&buf), &got);
    kv_buf_free(&buf);
    return err;
}

static enum kv_err piece_in_slot_with(uint64_t slot_bytes)
{
    struct kv_buf buf = {0};
    struct kv_msg_piece got;
    kv_put_piece(&buf, &(struct kv_msg_piece){.in_slot = true, .slot_bytes = slot_bytes});
    enum kv_err err = kv_get_piece(kv_buf_peek(&buf), &got);
    kv_buf_free(&buf);
    return err;
}

Test(message_limits, a_slot_of_the_arena)
{
    cr_expect_eq(fetch_with(KV_PIECE_BYTES_MAX, false, 0), KV_OK);
    cr_expect_eq(fetch_with(KV_PIECE_BYTES_MAX + 1, false, 0), KV_INVALID);
    const unsigned longest = KV_SLOT_BYTES_MAX / KV_ARENA_UNIT_BYTES;
    cr_expect_eq(fetch_with(KV_SLOT_BYTES_MAX, true, KV_ARENA_UNITS - longest), KV_OK);
    cr_expect_eq(fetch_with(KV_SLOT_BYTES_MAX, true, KV_ARENA_UNITS - longest + 1), KV_INVALID);
    cr_expect_eq(fetch_with(KV_SLOT_BYTES_MAX + 1, true, 0), KV_INVALID);
    cr_expect_eq(fetch_with(KV_ARENA_UNIT_BYTES, true, KV_ARENA_UNITS - 1), KV_OK);
    cr_expect_eq(fetch_with(KV_ARENA_UNIT_BYTES + 1, true, KV_ARENA_UNITS - 1), KV_INVALID);
    cr_expect_eq(fetch_with(0, true, KV_ARENA_UNITS), KV_INVALID);
    cr_expect_eq(open_with(KV_ARENA_UNIT_BYTES, KV_ARENA_UNITS - 1), KV_OK);
    cr_expect_eq(open_with(KV_ARENA_UNIT_BYTES + 1, KV_ARENA_UNITS - 1), KV_INVALID);
    cr_expect_eq(piece_in_slot_with(KV_SLOT_BYTES_MAX), KV_OK);
    cr_expect_eq(piece_in_slot_with(KV_SLOT_BYTES_MAX + 1), KV_INVALID);
}

Test(message_limits, piece_and_error_limits)
{
    static uint8_t space[KV_PIECE_BYTES_MAX + 1];
    struct kv_buf buf = {0};
    struct kv_msg_stage_data data;
    kv_put_stage_data(&buf, &(struct kv_msg_stage_data){1, 0, kv_slice(space, KV_PIECE_BYTES_MAX)});
    cr_expect_eq(kv_get_stage_data(kv_buf_peek(&buf), &data), KV_OK);
    buf.bytes = 0;
    kv_put_stage_data(&buf, &(struct kv_msg_stage_data){1, 0, kv_slice(space, KV_PIECE_BYTES_MAX + 1)});
    cr_expect_eq(kv_get_stage_data(kv_buf_peek(&buf), &data), KV_INVALID);
    for (unsigned number = 0; number < 100; number++) {
        enum kv_err done;
        buf.bytes = 0;
        kv_put_id(&buf, number);
        cr_expect_eq(kv_get_done(kv_buf_peek(&buf), &done), number < KV_ERR_COUNT ? KV_OK : KV_INVALID);
    }
    kv_buf_free(&buf);
}

Test(message_limits, hostile_list_counts)
{
    static const char *const lists[] = {
        "\x91\xdd\xff\xff\xff\xff",                     /* REFS of 4 billion hashes */
        "\x92\x00\xdd\xff\xff\xff\xff",                 /* COUNTS, LOCKED, VOTE */
        "\x95\x00\xc2\x00\xc4\x00\xdd\xff\xff\xff\xff", /* PAGE */
        "\x93\x01\x01\xdc\xff\xff",                     /* PREPARE */
    };
    struct kv_list list;
    enum kv_err answer;
    uint64_t number;
    struct kv_msg_page page;
    struct kv_msg_prepare prepare = {0};
    cr_expect_eq(kv_get_refs(kv_slice(lists[0], 6), &list), KV_INVALID);
    cr_expect_eq(kv_get_counters(kv_slice(lists[0], 6), &list), KV_INVALID);
    cr_expect_eq(kv_get_counts(kv_slice(lists[1], 7), &answer, &list), KV_INVALID);
    cr_expect_eq(kv_get_locked(kv_slice(lists[1], 7), &answer, &list), KV_INVALID);
    cr_expect_eq(kv_get_lock(kv_slice(lists[1], 7), &number, &list), KV_INVALID);
    cr_expect_eq(kv_get_vote(kv_slice(lists[1], 7), &answer, &list), KV_INVALID);
    cr_expect_eq(kv_get_page(kv_slice(lists[2], 11), &page), KV_INVALID);
    cr_expect_eq(kv_get_prepare(kv_slice(lists[3], 6), &prepare), KV_INVALID);
    cr_expect_eq(prepare.ops.capacity, 0u, "no memory for what cannot be there");
}
