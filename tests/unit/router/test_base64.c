/* Goal: base64 is that of RFC 4648, both ways, and nothing else is taken. Method: its test vectors, every length, every wrong byte. */
#include <criterion/criterion.h>

#include "base64.h"

static const struct {
    const char *bytes, *text;
} vectors[] = {{"", ""},
               {"f", "Zg=="},
               {"fo", "Zm8="},
               {"foo", "Zm9v"},
               {"foob", "Zm9vYg=="},
               {"fooba", "Zm9vYmE="},
               {"foobar", "Zm9vYmFy"},
               {"\xfb\xff", "+/8="}};

Test(base64, vectors)
{
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        struct kv_buf text = {0}, bytes = {0};
        base64_encode(kv_slice_text(vectors[i].bytes), &text);
        cr_expect(kv_slice_equal(kv_buf_peek(&text), kv_slice_text(vectors[i].text)), "%s", vectors[i].text);
        cr_expect_eq(text.bytes, base64_text_bytes(strlen(vectors[i].bytes)));
        cr_expect_eq(base64_decode(kv_buf_peek(&text), &bytes), KV_OK);
        cr_expect(kv_slice_equal(kv_buf_peek(&bytes), kv_slice_text(vectors[i].bytes)), "%s", vectors[i].text);
        kv_buf_free(&text);
        kv_buf_free(&bytes);
    }
}

/* Longer than one step of the encoder, appended to what is there. */
Test(base64, all_lengths_come_back)
{
    enum { LARGE = (3 << 20) + 5 };
    struct kv_buf content = {0};
    for (size_t i = 0; i < LARGE; i++)
        kv_buf_reserve(&content, LARGE)[i] = (uint8_t)(i * 7 + (i >> 8));
    for (size_t bytes = 0; bytes <= LARGE; bytes = bytes == 300 ? LARGE : bytes + 1) {
        struct kv_buf text = {0}, back = {0};
        kv_buf_append(&back, kv_slice_text("x"));
        base64_encode(kv_slice(content.data, bytes), &text);
        cr_assert_eq(base64_decode(kv_buf_peek(&text), &back), KV_OK);
        cr_assert_eq(back.bytes, bytes + 1);
        cr_assert_eq(memcmp(back.data + 1, content.data, bytes), 0, "%zu bytes", bytes);
        kv_buf_free(&text);
        kv_buf_free(&back);
    }
    kv_buf_free(&content);
}

Test(base64, nothing_else_is_taken)
{
    static const char *const refused[] = {"Zg",    "Zg=",    "Zm8",  "Z===", "====", "=g==",     "Zg==Zg==", " Zg==",
                                          "Zg== ", "Zm\n8=", "Zm_v", "Zh==", "Zm9=", "Zm9vYg=a", "Zg==\n"};
    struct kv_buf bytes = {0};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        cr_expect_eq(base64_decode(kv_slice_text(refused[i]), &bytes), KV_INVALID, "%s", refused[i]);
    cr_expect_eq(bytes.bytes, 0);
    kv_buf_free(&bytes);
}
