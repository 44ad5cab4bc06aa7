/* Goal: large values go in and out exactly, in bounded memory, and damage never reaches a client as data.
 * Method: contents of many frames through both protocols; fetches counted; stored bytes garbled at chosen offsets; objects that
 * vanish between two fetches; compressed frames decoded by zstd itself. */
#include "harness.h"

#include <stdlib.h>
#include <unistd.h>
#include <zstd.h>

#include "codec.h"
#include "metrics_internal.h"
#include "thread.h"

static void setup(void)
{
    http_defaults();
    http_start();
}

TestSuite(large, .init = setup, .fini = http_stop);

enum { BYTES = 10 * 1024 * 1024 + 1 };

static void store(const char *path, const struct kv_buf *content)
{
    struct answer answer = http_put(H2, path, kv_buf_peek(content), NULL);
    cr_assert(answer.status == 201 || answer.status == 200, "%ld %s", answer.status, answer.body.data);
    answer_free(&answer);
}

Test(large, in_and_out)
{
    for (int random = 0; random < 2; random++) {
        struct kv_buf content = http_content(BYTES, random);
        for (size_t v = 0; v < 2; v++) {
            struct answer put = http_put(http_versions[v], "/large", kv_buf_peek(&content), NULL);
            cr_assert(put.status == 201 || put.status == 200, "%ld", put.status);
            struct answer get = http_get(http_versions[v], "/large", NULL);
            cr_expect_eq(get.status, 200);
            cr_expect(kv_slice_equal(kv_buf_peek(&get.body), kv_buf_peek(&content)));
            answer_free(&put);
            answer_free(&get);
        }
        kv_buf_free(&content);
    }
    fake_piece_max(10007); /* fetches bring less than was asked */
    struct kv_buf content = http_content(3000000, true);
    store("/small-pieces", &content);
    struct answer get = http_get(H2, "/small-pieces", NULL);
    cr_expect(kv_slice_equal(kv_buf_peek(&get.body), kv_buf_peek(&content)));
    answer_free(&get);
    kv_buf_free(&content);
}

Test(large, a_range_fetches_only_its_frames)
{
    struct kv_buf content = http_content(BYTES, true);
    store("/large", &content);
    for (size_t v = 0; v < 2; v++) {
        uint64_t before = fake_fetched_bytes();
        struct answer get = http_get(http_versions[v], "/large", "Range: bytes=9000000-9000099");
        cr_expect_eq(get.status, 206);
        cr_expect(kv_slice_equal(kv_buf_peek(&get.body), kv_slice(content.data + 9000000, 100)));
        cr_expect_leq(fake_fetched_bytes() - before, KV_CONTENT_FRAME_BYTES);
        answer_free(&get);
        get = http_get(http_versions[v], "/large", "Range: bytes=-1048577");
        cr_expect(kv_slice_equal(kv_buf_peek(&get.body), kv_slice(content.data + BYTES - 1048577, 1048577)));
        answer_free(&get);
    }
    kv_buf_free(&content);
}

Test(large, compressed_frames_pass_through)
{
    struct kv_buf content = http_content(BYTES, false);
    store("/text", &content);
    for (size_t v = 0; v < 2; v++) {
        struct answer get = http_get(http_versions[v], "/text", "Accept-Encoding: gzip, zstd;q=0.5");
        cr_assert_eq(get.status, 200);
        cr_expect_str_eq(http_value(&get, "content-encoding"), "zstd");
        cr_expect_eq((size_t)atoll(http_value(&get, "content-length")), get.body.bytes);
        cr_expect(strstr(http_value(&get, "etag"), "-zstd\"") != NULL);
        char match[128];
        snprintf(match, sizeof(match), "If-None-Match: %s", http_value(&get, "etag"));
        cr_expect_lt(get.body.bytes, BYTES);
        uint8_t *back = kv_alloc(BYTES);
        size_t made = 0;
        for (size_t at = 0, frame; at < get.body.bytes; at += frame) {
            frame = ZSTD_findFrameCompressedSize(get.body.data + at, get.body.bytes - at);
            cr_assert_not(ZSTD_isError(frame));
            made += ZSTD_decompress(back + made, BYTES - made, get.body.data + at, frame);
        }
        cr_expect(kv_slice_equal(kv_slice(back, made), kv_buf_peek(&content)));
        free(back);
        answer_free(&get);
        get = http_get(http_versions[v], "/text", match);
        cr_expect_eq(get.status, 304);
        answer_free(&get);
        get = http_ask(http_versions[v],
                       &(struct request){.path = "/text", .headers = {"Accept-Encoding: zstd", "Range: bytes=0-9"}});
        cr_expect_eq(get.status, 206);
        cr_expect_str_eq(http_value(&get, "content-encoding"), "");
        cr_expect(kv_slice_equal(kv_buf_peek(&get.body), kv_slice(content.data, 10)));
        answer_free(&get);
    }
    kv_buf_free(&content);
}

Test(large, mixed_and_raw_contents_are_not_sent_as_zstd)
{
    struct kv_buf content = http_content(400000, true);
    struct kv_buf tail = http_content(300000, false);
    kv_buf_append(&content, kv_buf_peek(&tail));
    store("/mixed", &content);
    struct answer get = http_get(H2, "/mixed", "Accept-Encoding: zstd");
    cr_expect_str_eq(http_value(&get, "content-encoding"), "");
    cr_expect(kv_slice_equal(kv_buf_peek(&get.body), kv_buf_peek(&content)));
    answer_free(&get);
    kv_buf_free(&content);
    kv_buf_free(&tail);
}

static uint64_t corrupt_count(void)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < http_server->thread_count; i++)
        count += kv_counter_get(&http_server->threads[i].metrics->counters[METRICS_CHECKSUM_FAILURES]);
    return count;
}

Test(large, damage_is_never_served)
{
    struct kv_buf content = http_content(BYTES, true);
    store("/large", &content);
    for (size_t v = 0; v < 2; v++) {
        fake_garble(codec_index_bytes(BYTES) + 1000); /* the first frame: found before the headers are out */
        struct answer get = http_get(http_versions[v], "/large", "Accept: application/json");
        cr_expect_eq(get.status, 500);
        cr_expect(strstr((const char *)get.body.data, "\"corrupt\"") != NULL, "%s", get.body.data);
        answer_free(&get);
        fake_garble(7000000); /* a later frame: the answer breaks off before it */
        get = http_get(http_versions[v], "/large", NULL);
        cr_expect_neq(get.curl_error, CURLE_OK);
        cr_expect_lt(get.body.bytes, 7000000);
        cr_expect(memcmp(get.body.data, content.data, get.body.bytes) == 0);
        answer_free(&get);
        get = http_get(http_versions[v], "/large", "Range: bytes=0-99");
        cr_expect_eq(get.status, 206, "the damage is elsewhere");
        answer_free(&get);
        fake_garble(3); /* the index */
        get = http_get(http_versions[v], "/large", NULL);
        cr_expect_eq(get.status, 500);
        answer_free(&get);
    }
    cr_expect_eq(corrupt_count(), 6);
    fake_garble(UINT64_MAX);
    kv_buf_free(&content);
}

Test(large, content_that_vanishes_before_the_first_byte_is_read_again)
{
    struct kv_buf content = http_content(BYTES, true);
    store("/large", &content);
    fake_stale_fetches(2);
    struct answer get = http_get(H1, "/large", "Range: bytes=9000000-9000099");
    cr_expect_eq(get.status, 206);
    cr_expect(kv_slice_equal(kv_buf_peek(&get.body), kv_slice(content.data + 9000000, 100)));
    answer_free(&get);
    fake_stale_fetches(100);
    get = http_get(H2, "/large", "Range: bytes=9000000-9000099");
    cr_expect_eq(get.status, 503);
    answer_free(&get);
    /* the first frame shrinks to next to nothing, so that it and one more come with the row, the others do not */
    fake_stale_fetches(0);
    memset(content.data, 'a', KV_CONTENT_FRAME_BYTES);
    store("/front", &content);
    fake_stale_fetches(100);
    for (size_t v = 0; v < 2; v++) {
        get = http_get(http_versions[v], "/front", NULL);
        cr_expect_neq(get.curl_error, CURLE_OK, "gone while the client took what had come: broken off");
        cr_expect_leq(get.body.bytes, 2 * KV_CONTENT_FRAME_BYTES);
        answer_free(&get);
    }
    fake_stale_fetches(0);
    kv_buf_free(&content);
}

/* A client that does not read: the router must not run ahead of it. */
Test(large, fetches_wait_for_the_client)
{
    struct kv_buf content = http_content(64 << 20, true);
    store("/large", &content);
    kv_buf_free(&content);
    int fd = http_connect();
    http_send(fd, "GET /large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN "\r\n\r\n");
    http_wait_until(fake_fetches() > 0);
    http_nap(300);
    cr_expect_leq(fake_fetched_bytes(), 4 << 20, "a chunk, a piece, what the sockets hold; not the value");
    cr_expect_eq(fake_holds(), 1);
    close(fd);
    http_wait_until(fake_holds() == 0);
}
