/* Goal: every body of the message table comes back as it was sent, and no other byte sequence passes for one.
 * Method: one case per message (the table itself checks that none is forgotten): round trip; truncated at each length and with a
 * byte left over: KV_INVALID; one member more or less: KV_INVALID; every byte replaced by every other value: a decode that says
 * KV_OK must then walk its lists to the end. Bodies stand in memory of their exact size, so that ASan sees a read beyond. */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "message_cases.h"

static enum kv_err get_exact(const struct message_case *message, const void *bytes, size_t count, bool compare)
{
    uint8_t *copy = malloc(count == 0 ? 1 : count);
    memcpy(copy, bytes, count);
    enum kv_err err = message->get(kv_slice(copy, count), compare);
    free(copy);
    return err;
}

Test(messages, no_message_is_forgotten){
#define X(name, id, from, to, answer, body)                                                                            \
    {                                                                                                                  \
        bool found = false;                                                                                            \
        for (size_t i = 0; i < CASE_COUNT; i++)                                                                        \
            found |= cases[i].type == KV_MSG_##name;                                                                   \
        cr_expect(found, "%s has no case", #name);                                                                     \
    }
    KV_MSG_TABLE(X)
#undef X
}

Test(messages, round_trip)
{
    for (size_t i = 0; i < CASE_COUNT; i++) {
        struct kv_buf buf = {0};
        cases[i].put(&buf);
        cr_expect_eq(get_exact(&cases[i], buf.data, buf.bytes, true), KV_OK, "%s", kv_msg_name(cases[i].type));
        kv_buf_free(&buf);
    }
}

Test(messages, truncation_and_leftovers)
{
    for (size_t i = 0; i < CASE_COUNT; i++) {
        struct kv_buf buf = {0};
        cases[i].put(&buf);
        size_t whole = buf.bytes;
        kv_buf_append(&buf, kv_slice("\xc0", 1));
        for (size_t count = 0; count <= buf.bytes; count++) {
            if (count != whole && get_exact(&cases[i], buf.data, count, false) != KV_INVALID)
                cr_assert_fail("%s: %zu bytes of %zu passed", kv_msg_name(cases[i].type), count, whole);
        }
        kv_buf_free(&buf);
    }
}

Test(messages, member_counts)
{
    for (size_t i = 0; i < CASE_COUNT; i++) {
        struct kv_buf buf = {0};
        cases[i].put(&buf);
        cr_assert_eq(buf.data[0] & 0xf0, 0x90, "a short array");
        buf.data[0]++;
        kv_pack_nil(&buf); /* one member more, and it is there */
        cr_expect_eq(get_exact(&cases[i], buf.data, buf.bytes, false), KV_INVALID, "%s", kv_msg_name(cases[i].type));
        buf.data[0] = 0x80; /* a map, not an array */
        cr_expect_eq(get_exact(&cases[i], buf.data, 1, false), KV_INVALID, "%s", kv_msg_name(cases[i].type));
        kv_buf_free(&buf);
    }
}

Test(messages, any_byte_replaced)
{
    size_t passed = 0;
    for (size_t i = 0; i < CASE_COUNT; i++) {
        struct kv_buf buf = {0};
        cases[i].put(&buf);
        for (size_t at = 0; at < buf.bytes; at++) {
            uint8_t original = buf.data[at];
            for (unsigned byte = 0; byte <= 0xff; byte++) {
                buf.data[at] = (uint8_t)byte;
                passed += get_exact(&cases[i], buf.data, buf.bytes, false) == KV_OK;
            }
            buf.data[at] = original;
        }
        kv_buf_free(&buf);
    }
    cr_expect_gt(passed, 1000u, "contents may change freely, only forms may not");
}
