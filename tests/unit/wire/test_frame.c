/* Goal: frames are cut from a stream exactly, in place, and what can never become a frame is refused before its body is awaited.
 * Method: golden header bytes; every message of the table in both directions; every truncation; lengths around the limit;
 * many frames in one stream, fed byte by byte. Inputs stand in memory of their exact size, so that ASan sees a read beyond. */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "kv/limits.h"
#include "wire/frame.h"

/* Cuts from a copy that ends where its allocation ends. */
static enum kv_err peek_exact(const void *bytes, size_t count, enum kv_role from, struct kv_frame *out, size_t *used)
{
    uint8_t *copy = malloc(count == 0 ? 1 : count);
    memcpy(copy, bytes, count);
    enum kv_err err = kv_frame_peek(kv_slice(copy, count), from, out, used);
    free(copy);
    return err;
}

static void put_frame(struct kv_buf *buf, enum kv_msg type, uint64_t request_id, const char *body)
{
    size_t begin = kv_frame_begin(buf, type, request_id);
    kv_buf_append(buf, kv_slice_text(body));
    kv_frame_end(buf, begin);
}

Test(frame, layout_is_little_endian)
{
    struct kv_buf buf = {0};
    put_frame(&buf, KV_MSG_READ, 0x0102030405060708u, "abc");
    static const uint8_t golden[] = {3, 0, 0, 0, 10, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 'a', 'b', 'c'};
    cr_assert_eq(buf.bytes, sizeof golden);
    cr_expect_arr_eq(buf.data, golden, sizeof golden);
    kv_buf_free(&buf);
}

Test(frame, every_truncation_asks_for_more)
{
    struct kv_buf buf = {0};
    put_frame(&buf, KV_MSG_LOCK, UINT64_MAX, "some body bytes");
    for (size_t bytes = 0; bytes < buf.bytes; bytes++) {
        struct kv_frame frame;
        size_t used = 0;
        cr_assert_eq(peek_exact(buf.data, bytes, KV_ROLE_ROUTER, &frame, &used), KV_NOT_FOUND, "at %zu", bytes);
        size_t needed = bytes < KV_FRAME_HEADER_BYTES ? KV_FRAME_HEADER_BYTES : buf.bytes;
        cr_assert_eq(used, needed, "at %zu: %zu", bytes, used);
    }
    kv_buf_free(&buf);
}

static enum kv_err peek_type(uint32_t type, enum kv_role from)
{
    uint8_t header[KV_FRAME_HEADER_BYTES] = {0};
    memcpy(header + 4, &type, sizeof type);
    struct kv_frame frame;
    size_t used = 0;
    enum kv_err err = peek_exact(header, sizeof header, from, &frame, &used);
    if (err == KV_OK)
        cr_assert(frame.type == (enum kv_msg)type && frame.body.bytes == 0 && used == KV_FRAME_HEADER_BYTES);
    return err;
}

/* What the table says about a type, spelled out independently of kv_msg_from. */
static unsigned speakers_of(uint32_t type)
{
    enum { FROM_ANY = 3, FROM_ROUTER = 1, FROM_SHARD = 2 };
    switch (type) {
#define X(name, id, from, to, answer, body)                                                                            \
    case id:                                                                                                           \
        return FROM_##from;
        KV_MSG_TABLE(X)
#undef X
    default:
        return 0;
    }
}

Test(frame, direction_and_type_are_checked)
{
    size_t known = 0;
    for (uint32_t type = 0; type < 600; type++) {
        unsigned speakers = speakers_of(type);
        cr_assert_eq(peek_type(type, KV_ROLE_ROUTER), speakers & 1 ? KV_OK : KV_INVALID, "type %u", type);
        cr_assert_eq(peek_type(type, KV_ROLE_SHARD), speakers & 2 ? KV_OK : KV_INVALID, "type %u", type);
        cr_assert_eq(strcmp(kv_msg_name(type), "?") != 0, speakers != 0, "type %u", type);
        known += speakers != 0;
    }
#define X(name, id, from, to, answer, body) +1
    cr_expect_eq(known, 0 KV_MSG_TABLE(X), "every row of the table has a number of its own");
#undef X
    cr_expect_eq(peek_type(UINT32_MAX, KV_ROLE_ROUTER), KV_INVALID);
    cr_expect_eq(peek_type(0x80000000u | KV_MSG_READ, KV_ROLE_ROUTER), KV_INVALID);
    cr_expect_eq(peek_type((uint32_t)KV_MSG_READ << 8, KV_ROLE_ROUTER), KV_INVALID);
    cr_expect_str_eq(kv_msg_name(KV_MSG_PREPARE), "PREPARE");
}

Test(frame, answers_go_the_other_way)
{
    cr_expect_eq(kv_msg_answer(KV_MSG_READ), (uint32_t)KV_MSG_ROW);
    cr_expect_eq(kv_msg_answer(KV_MSG_STAGE_DATA), (uint32_t)KV_MSG_DONE);
    cr_expect_eq(kv_msg_answer(KV_MSG_CLOSE), 0u);
    for (uint32_t type = 0; type < 600; type++) {
        uint32_t answer = kv_msg_answer(type);
        bool asks = answer != 0;
        cr_assert(!asks || (kv_msg_from(type, KV_ROLE_ROUTER) && kv_msg_from(answer, KV_ROLE_SHARD)), "type %u", type);
        bool tells = type == KV_MSG_CLOSE || type == KV_MSG_STAGE_DROP || type == KV_MSG_ARENA;
        cr_assert(asks || tells || !kv_msg_from(type, KV_ROLE_ROUTER), "type %u has no answer", type);
    }
}

Test(frame, length_limit_is_checked_before_the_body_arrives)
{
    static const uint32_t refused[] = {KV_FRAME_BODY_BYTES_MAX + 1, 0x7fffffffu, 0x80000000u, UINT32_MAX};
    uint8_t header[KV_FRAME_HEADER_BYTES] = {0, 0, 0, 0, KV_MSG_READ};
    struct kv_frame frame;
    size_t used = 0;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        memcpy(header, &refused[i], sizeof refused[i]);
        cr_expect_eq(peek_exact(header, sizeof header, KV_ROLE_ROUTER, &frame, &used), KV_INVALID);
    }
    uint32_t largest = KV_FRAME_BODY_BYTES_MAX;
    memcpy(header, &largest, sizeof largest);
    cr_expect_eq(peek_exact(header, sizeof header, KV_ROLE_ROUTER, &frame, &used), KV_NOT_FOUND);
    cr_expect_eq(used, (size_t)KV_FRAME_BODY_BYTES_MAX + KV_FRAME_HEADER_BYTES);
}

Test(frame, largest_body_passes)
{
    struct kv_buf buf = {0};
    size_t begin = kv_frame_begin(&buf, KV_MSG_APPLY, 1);
    memset(kv_buf_reserve(&buf, KV_FRAME_BODY_BYTES_MAX), 7, KV_FRAME_BODY_BYTES_MAX);
    buf.bytes += KV_FRAME_BODY_BYTES_MAX;
    kv_frame_end(&buf, begin);
    struct kv_frame frame;
    size_t used;
    cr_assert_eq(kv_frame_peek(kv_buf_peek(&buf), KV_ROLE_ROUTER, &frame, &used), KV_OK);
    cr_expect_eq(frame.body.bytes, KV_FRAME_BODY_BYTES_MAX);
    cr_expect_eq(used, buf.bytes);
    kv_buf_free(&buf);
}

#define FRAME_COUNT 50u

static void put_numbered_frames(struct kv_buf *stream)
{
    for (unsigned i = 0; i < FRAME_COUNT; i++) {
        char body[FRAME_COUNT + 1];
        memset(body, (int)('a' + i % 26), sizeof body);
        body[i] = '\0';
        put_frame(stream, i % 2 == 0 ? KV_MSG_DONE : KV_MSG_HELLO, i * 1000, body);
    }
}

Test(frame, frames_follow_each_other)
{
    struct kv_buf stream = {0}, received = {0};
    put_numbered_frames(&stream);
    unsigned seen = 0;
    for (size_t fed = 0; fed < stream.bytes; fed++) { /* the peer sends one byte at a time */
        kv_buf_append(&received, kv_slice(stream.data + fed, 1));
        struct kv_frame frame;
        size_t used;
        if (kv_frame_peek(kv_buf_peek(&received), KV_ROLE_SHARD, &frame, &used) != KV_OK)
            continue;
        cr_assert(frame.request_id == seen * 1000u && frame.body.bytes == seen && used == received.bytes);
        cr_assert(frame.body.data == received.data + KV_FRAME_HEADER_BYTES, "the body is cut in place");
        cr_assert(seen == 0 || frame.body.data[seen - 1] == 'a' + seen % 26);
        kv_buf_consume(&received, used);
        seen++;
    }
    cr_expect_eq(seen, FRAME_COUNT);
    cr_expect_eq(received.bytes, 0u);
    kv_buf_free(&stream);
    kv_buf_free(&received);
}
