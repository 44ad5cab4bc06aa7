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

Test(rows, object_row_comes_back)
{
    uint8_t space[ROW_OBJECT_BYTES];
    struct kv_object object = {.size = 7,
                               .stored_bytes = KV_STORED_BYTES_MAX,
                               .codec = KV_CODEC_MIXED,
                               .object_id = UINT64_MAX - 1,
                               .refs = 100};
    struct kv_object back = {.held = true, .bytes = kv_slice_text("rest")};
    struct kv_slice bytes = row_encode_object(&object, space);
    cr_assert_eq(bytes.bytes, ROW_OBJECT_BYTES);
    cr_assert_eq(row_decode_object(bytes, &back), KV_OK);
    cr_expect_eq(back.size, 7);
    cr_expect_eq(back.stored_bytes, KV_STORED_BYTES_MAX);
    cr_expect_eq(back.object_id, UINT64_MAX - 1);
    cr_expect_eq(back.refs, 100);
    cr_expect_eq(back.codec, KV_CODEC_MIXED);
    cr_expect_not(back.held);
    cr_expect_eq(back.bytes.bytes, 0);
}

Test(rows, damaged_object_rows_are_refused)
{
    uint8_t space[ROW_OBJECT_BYTES + 1] = {0};
    struct kv_object object = {.size = 1, .stored_bytes = 1, .object_id = 1, .refs = 1}, back = {.refs = 55};
    row_encode_object(&object, space);
    cr_expect_eq(row_decode_object(kv_slice(space, ROW_OBJECT_BYTES + 1), &back), KV_CORRUPT);
    cr_expect_eq(row_decode_object(kv_slice(space, ROW_OBJECT_BYTES - 1), &back), KV_CORRUPT);
    space[ROW_OBJECT_BYTES - 1] = KV_CODEC_MIXED + 1;
    cr_expect_eq(row_decode_object(kv_slice(space, ROW_OBJECT_BYTES), &back), KV_CORRUPT, "unknown codec");
    space[ROW_OBJECT_BYTES - 1] = 0;
    memset(space + 8, 0xff, 8);
    cr_expect_eq(row_decode_object(kv_slice(space, ROW_OBJECT_BYTES), &back), KV_CORRUPT, "absurd stored bytes");
    cr_expect_eq(back.refs, 55, "out is untouched on error");
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
