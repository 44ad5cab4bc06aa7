/* Goal: rows keep every field, and bytes of another shape are refused rather than read.
 * Method: fields at their extremes through encode and decode; golden bytes for the layout, which is part of the file format;
 * every length around the limits. */
#include <criterion/criterion.h>

#include "rows.h"

static struct kv_row sample_row(struct kv_slice content_type)
{
    struct kv_row row = {.size = 0x0102030405060708u, .created_s = 1795375800, .txn_id = UINT64_MAX};
    for (size_t i = 0; i < KV_HASH_BYTES; i++)
        row.hash.bytes[i] = (uint8_t)(0xe0 + i);
    row.content_type = content_type;
    return row;
}

Test(rows, key_row_comes_back)
{
    uint8_t space[ROW_KEY_BYTES_MAX];
    struct kv_row row = sample_row(kv_slice_text("image/png")), back = {0};
    struct kv_slice bytes = row_encode_key(&row, space);
    cr_assert_eq(bytes.bytes, ROW_KEY_BYTES_MIN + 9);
    cr_assert_eq(row_decode_key(bytes, &back), KV_OK);
    cr_expect(kv_hash_equal(&back.hash, &row.hash));
    cr_expect_eq(back.size, row.size);
    cr_expect_eq(back.created_s, row.created_s);
    cr_expect_eq(back.txn_id, row.txn_id);
    cr_expect(kv_slice_equal(back.content_type, row.content_type));
}

Test(rows, key_row_layout_is_little_endian)
{
    uint8_t space[ROW_KEY_BYTES_MAX];
    struct kv_row row = sample_row(kv_slice_text("x"));
    struct kv_slice bytes = row_encode_key(&row, space);
    static const uint8_t size[8] = {8, 7, 6, 5, 4, 3, 2, 1};
    cr_expect_arr_eq(bytes.data, row.hash.bytes, KV_HASH_BYTES);
    cr_expect_arr_eq(bytes.data + 32, size, 8);
    cr_expect_eq(bytes.data[56], 'x');
}

Test(rows, key_row_lengths)
{
    static uint8_t type[KV_CONTENT_TYPE_BYTES_MAX], space[ROW_KEY_BYTES_MAX], longer[ROW_KEY_BYTES_MAX + 1];
    memset(type, 't', sizeof type);
    struct kv_row row = sample_row(kv_slice(type, sizeof type)), back = sample_row(kv_slice(NULL, 0));
    struct kv_slice bytes = row_encode_key(&row, space);
    cr_assert_eq(bytes.bytes, ROW_KEY_BYTES_MAX);
    cr_expect_eq(row_decode_key(bytes, &back), KV_OK);
    cr_expect_eq(back.content_type.bytes, KV_CONTENT_TYPE_BYTES_MAX);
    cr_expect_eq(row_decode_key(kv_slice(longer, sizeof longer), &back), KV_CORRUPT);
    cr_expect_eq(row_decode_key(kv_slice(space, ROW_KEY_BYTES_MIN - 1), &back), KV_CORRUPT);
    cr_expect_eq(row_decode_key(kv_slice(space, ROW_KEY_BYTES_MIN), &back), KV_OK);
    cr_expect_eq(back.content_type.bytes, 0);
    cr_expect_eq(row_decode_key(kv_slice(NULL, 0), &back), KV_CORRUPT);
}

#define POINTER_BYTES 33u /* of a row that says where the bytes are */
#define WHOLE_BYTES 17u   /* of one that has them, without them */

Test(rows, object_row_comes_back)
{
    uint8_t space[ROW_OBJECT_BYTES_MAX];
    struct kv_object object = {.size = 7,
                               .stored_bytes = KV_STORED_BYTES_MAX,
                               .codec = KV_CODEC_MIXED,
                               .object_id = UINT64_MAX - 1,
                               .refs = 100};
    struct kv_object back = {.held = true, .bytes = kv_slice_text("rest")};
    struct kv_slice bytes = row_encode_object(&object, space);
    cr_assert_eq(bytes.bytes, POINTER_BYTES);
    cr_assert_eq(row_decode_object(bytes, &back), KV_OK);
    cr_expect_eq(back.size, 7);
    cr_expect_eq(back.stored_bytes, KV_STORED_BYTES_MAX);
    cr_expect_eq(back.object_id, UINT64_MAX - 1);
    cr_expect_eq(back.refs, 100);
    cr_expect_eq(back.codec, KV_CODEC_MIXED);
    cr_expect_not(back.held);
    cr_expect_eq(back.bytes.bytes, 0);
}

Test(rows, a_small_content_is_its_row)
{
    static const size_t sizes[] = {0, 1, 15, 16, 17, ROW_CONTENT_BYTES_MAX}; /* 16: as long as the other kind */
    uint8_t space[ROW_OBJECT_BYTES_MAX], content[ROW_CONTENT_BYTES_MAX];
    memset(content, KV_CODEC_RAW, sizeof content); /* no content passes for the end of its row */
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct kv_object object = {.size = UINT64_MAX, .codec = KV_CODEC_ZSTD, .refs = 3}, back = {.object_id = 9};
        object.stored_bytes = sizes[i];
        object.bytes = kv_slice(content, sizes[i]);
        struct kv_slice bytes = row_encode_object(&object, space);
        cr_assert_eq(bytes.bytes, WHOLE_BYTES + sizes[i]);
        cr_assert_eq(row_decode_object(bytes, &back), KV_OK);
        cr_expect_eq(back.object_id, 0);
        cr_expect_eq(back.size, UINT64_MAX);
        cr_expect_eq(back.stored_bytes, sizes[i]);
        cr_expect_eq(back.refs, 3);
        cr_expect_eq(back.codec, KV_CODEC_ZSTD);
        cr_expect(kv_slice_equal(back.bytes, object.bytes));
    }
}

/* Part of the file format: these are the bytes that a build of format 1 wrote, and that every build of format 2 writes. */
Test(rows, object_row_layouts)
{
    uint8_t space[ROW_OBJECT_BYTES_MAX];
    static const uint8_t pointer[POINTER_BYTES] = {[0] = 0x34, [1] = 0x12, [8] = 2, [16] = 3, [24] = 4, [32] = 1};
    static const uint8_t whole[WHOLE_BYTES + 2] = {'a', 'b', 0x34, 0x12, [10] = 4, [18] = 0x81};
    struct kv_object object = {.size = 0x1234, .stored_bytes = 2, .codec = KV_CODEC_ZSTD, .object_id = 3, .refs = 4};
    cr_expect(kv_slice_equal(row_encode_object(&object, space), kv_slice(pointer, sizeof pointer)));
    object.object_id = 0;
    object.bytes = kv_slice_text("ab");
    cr_expect(kv_slice_equal(row_encode_object(&object, space), kv_slice(whole, sizeof whole)));
}

static void expect_refused(const uint8_t *row, size_t bytes, const char *what)
{
    struct kv_object back = {.refs = 55};
    cr_expect_eq(row_decode_object(kv_slice(row, bytes), &back), KV_CORRUPT, "%s", what);
    cr_expect_eq(back.refs, 55, "out is untouched on error");
}

Test(rows, damaged_object_rows_are_refused)
{
    uint8_t space[ROW_OBJECT_BYTES_MAX + 1] = {0};
    struct kv_object object = {.size = 1, .stored_bytes = 1, .object_id = 1, .refs = 1};
    row_encode_object(&object, space);
    expect_refused(space, POINTER_BYTES + 1, "too long");
    expect_refused(space, POINTER_BYTES - 1, "too short");
    space[POINTER_BYTES - 1] = KV_CODEC_MIXED + 1;
    expect_refused(space, POINTER_BYTES, "unknown codec");
    space[POINTER_BYTES - 1] = 0;
    memset(space + 16, 0, 8);
    expect_refused(space, POINTER_BYTES, "bytes that are nowhere");
    space[16] = 1;
    memset(space + 8, 0xff, 8);
    expect_refused(space, POINTER_BYTES, "absurd stored bytes");
    expect_refused(space, 0, "nothing");
    static uint8_t whole[ROW_OBJECT_BYTES_MAX + 1];
    memset(whole, 0x80, sizeof whole);
    expect_refused(whole, sizeof whole, "a content that is too large for a row");
    expect_refused(whole, WHOLE_BYTES - 1, "too short for a whole one");
    whole[WHOLE_BYTES - 1] = 0x80 | (KV_CODEC_MIXED + 1);
    expect_refused(whole, WHOLE_BYTES, "unknown codec of a whole one");
}

Test(rows, ids_sort_as_numbers)
{
    static const uint64_t ids[] = {0, 1, 255, 256, 65535, 1ull << 32, UINT64_MAX};
    for (size_t i = 0; i + 1 < sizeof ids / sizeof *ids; i++) {
        uint8_t a[8], b[8];
        cr_expect_lt(kv_slice_compare(row_encode_id(ids[i], a), row_encode_id(ids[i + 1], b)), 0);
        cr_expect_eq(row_decode_id(kv_slice(a, 8)), ids[i]);
    }
}
