/* Goal: what json.h writes is JSON, and says what went in. Method: every byte value and odd text, read back by jansson. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>

#include "json.h"
#include "key.h"

static json_t *parse(const struct kv_buf *buf)
{
    json_error_t error;
    json_t *value = json_loadb((const char *)buf->data, buf->bytes,
                               JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
    cr_assert_not_null(value, "%s in %.*s", error.text, (int)buf->bytes, (const char *)buf->data);
    return value;
}

static void expect_string(struct kv_buf *buf, struct kv_slice expected)
{
    json_t *value = parse(buf);
    cr_assert(json_is_string(value));
    cr_expect(kv_slice_equal(kv_slice(json_string_value(value), json_string_length(value)), expected), "%.*s",
              (int)buf->bytes, (const char *)buf->data);
    json_decref(value);
    kv_buf_free(buf);
}

Test(json, every_ascii_byte_survives)
{
    uint8_t all[128];
    struct kv_buf buf = {0};
    for (unsigned i = 0; i < sizeof(all); i++)
        all[i] = (uint8_t)i;
    json_text(&buf, kv_slice(all, sizeof(all)));
    cr_expect_eq(buf.bytes, json_text_bytes(kv_slice(all, sizeof(all))));
    for (size_t i = 0; i < buf.bytes; i++)
        cr_expect(buf.data[i] >= ' ' && buf.data[i] < 0x7f, "byte %02x is not escaped", buf.data[i]);
    expect_string(&buf, kv_slice(all, sizeof(all)));
    for (unsigned i = 0; i < sizeof(all); i++) { /* each alone, at both ends */
        uint8_t text[3] = {(uint8_t)i, 'x', (uint8_t)i};
        json_text(&buf, kv_slice(text, 3));
        cr_expect_eq(buf.bytes, json_text_bytes(kv_slice(text, 3)));
        expect_string(&buf, kv_slice(text, 3));
    }
}

Test(json, text_beyond_ascii_stays)
{
    static const char *const texts[] = {"", "\xc3\xa9", "\xe2\x80\xa8\xe2\x80\xa9", "\xf0\x9f\x98\x80 smile",
                                        "\xef\xbf\xbf"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct kv_buf buf = {0};
        json_text(&buf, kv_slice_text(texts[i]));
        cr_expect_eq(buf.bytes, strlen(texts[i]) + 2);
        expect_string(&buf, kv_slice_text(texts[i]));
    }
}

Test(json, headers_that_are_not_utf8_are_latin1)
{
    struct kv_buf buf = {0};
    json_header_text(&buf, kv_slice_text("a=\xe9\xff\x80"));
    expect_string(&buf, kv_slice_text("a=\xc3\xa9\xc3\xbf\xc2\x80"));
    json_header_text(&buf, kv_slice_text("a=\xc3\xa9"));
    expect_string(&buf, kv_slice_text("a=\xc3\xa9"));
}

Test(json, base64_of_every_length)
{
    static const char *const expected[] = {"\"\"",         "\"Zg==\"",     "\"Zm8=\"",    "\"Zm9v\"",
                                           "\"Zm9vYg==\"", "\"Zm9vYmE=\"", "\"Zm9vYmFy\""}; /* RFC 4648, 10 */
    for (size_t i = 0; i < 7; i++) {
        struct kv_buf buf = {0};
        json_base64(&buf, kv_slice("foobar", i));
        cr_expect(kv_slice_equal(kv_buf_peek(&buf), kv_slice_text(expected[i])), "%zu bytes", i);
        kv_buf_free(&buf);
    }
    /* in several steps: no padding in the middle */
    size_t bytes = 7 * 1024 * 1024 + 1;
    uint8_t *zeros = kv_alloc_zero(1, bytes);
    struct kv_buf buf = {0};
    json_base64(&buf, kv_slice(zeros, bytes));
    cr_assert_eq(buf.bytes, (bytes + 2) / 3 * 4 + 2);
    for (size_t i = 1; i < buf.bytes - 3; i++)
        cr_assert_eq(buf.data[i], 'A', "at %zu", i);
    kv_buf_free(&buf);
    free(zeros);
}

Test(json, numbers_and_hashes)
{
    struct kv_buf buf = {0};
    struct kv_hash hash = {{0x01, 0xab}};
    json_raw(&buf, "[");
    json_number(&buf, UINT64_MAX);
    json_raw(&buf, ",");
    json_bool(&buf, true);
    json_raw(&buf, ",");
    json_hash(&buf, &hash);
    json_raw(&buf, "]");
    cr_expect(
        kv_slice_equal(kv_buf_peek(&buf), kv_slice_text("[18446744073709551615,true,\"01ab000000000000000000000000"
                                                        "000000000000000000000000000000000000\"]")));
    kv_buf_free(&buf);
}
