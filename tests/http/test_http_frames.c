/* Goal: a large value that comes from the router's memory is the one that the shards have, byte for byte, in every form that a client may
 * ask for; what was written shows at once; clients that read slowly get what they began with.
 * Method: the HTTP side over a twin of the backend that counts the bytes fetched from it. */
#include "harness.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "metrics_internal.h"
#include "thread.h"

enum { BYTES = 3 * KV_CONTENT_FRAME_BYTES + 1000, CACHE_BYTES = 32 * KV_CONTENT_FRAME_BYTES };

static void setup(void)
{
    http_defaults();
    http_settings.router_threads = 1;        /* each has frames of its own */
    http_settings.cache_bytes = CACHE_BYTES; /* half of it for frames, a quarter of that for one answer: four */
    http_start();
    fake_may_keep(true);
}

TestSuite(frames, .init = setup, .fini = http_stop);

static void put(const char *path, const struct kv_buf *content)
{
    struct answer answer = http_put(H2, path, kv_buf_peek(content), "Content-Type: text/x-test");
    cr_assert(answer.status == 200 || answer.status == 201, "%ld", answer.status);
    answer_free(&answer);
}

/* Returns how many bytes were fetched for it. */
static uint64_t get(enum version version, const char *path, const char *header, struct answer *out)
{
    uint64_t before = fake_fetched_bytes();
    *out = http_get(version, path, header);
    return fake_fetched_bytes() - before;
}

static uint64_t expect_whole(enum version version, const char *path, const struct kv_buf *content)
{
    struct answer answer;
    uint64_t fetched = get(version, path, NULL, &answer);
    cr_expect_eq(answer.status, 200);
    cr_expect(kv_slice_equal(kv_buf_peek(&answer.body), kv_buf_peek(content)), "%s", path);
    answer_free(&answer);
    return fetched;
}

/* Asks no shard for anything. */
static void expect_from_memory(enum version version, const char *path, const struct kv_buf *content)
{
    size_t calls = fake_calls();
    cr_expect_eq(expect_whole(version, path, content), 0);
    cr_expect_eq(fake_calls(), calls);
}

/* Two GETs are enough. */
static void warm(const char *path, const struct kv_buf *content)
{
    cr_expect_gt(expect_whole(H2, path, content), 0);
    cr_expect_gt(expect_whole(H2, path, content), 0);
}

static uint64_t counted(enum metrics_counter counter)
{
    return kv_counter_get(&http_server->threads[0].metrics->counters[counter]);
}

static uint64_t gauge(enum metrics_gauge gauge)
{
    return kv_counter_get(&http_server->threads[0].metrics->gauges[gauge]);
}

static void expect_same(const struct answer *one, const struct answer *other)
{
    static const char *const names[] = {"content-type", "content-length",   "etag",   "vary",         "last-modified",
                                        "x-hash",       "x-content-sha256", "x-refs", "x-created-at", "content-range"};
    cr_expect_eq(one->status, other->status);
    cr_expect(kv_slice_equal(kv_buf_peek(&one->body), kv_buf_peek(&other->body)));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        cr_expect_str_eq(http_value(one, names[i]), http_value(other, names[i]), "%s", names[i]);
}

static void all_forms(bool random)
{
    static const char *const headers[] = {NULL,
                                          "Range: bytes=0-0",
                                          "Range: bytes=5-262144",
                                          "Range: bytes=262144-524287",
                                          "Range: bytes=500000-786999",
                                          "Range: bytes=-1",
                                          "Range: bytes=-1001",
                                          "If-None-Match: *",
                                          "If-Match: \"x\"",
                                          "Accept-Encoding: gzip"};
    enum { COUNT = sizeof headers / sizeof *headers };
    struct kv_buf content = http_content(BYTES, random);
    struct answer fresh[2][COUNT], again;
    put("/k", &content);
    for (size_t v = 0; v < 2; v++)
        for (size_t i = 1; i < COUNT - 1; i++) /* too few of the same for the whole to be kept */
            get(http_versions[v], "/k", headers[i], &fresh[v][i]);
    get(H1, "/k", NULL, &fresh[0][0]);
    fresh[1][0] = http_get(H2, "/k", NULL);
    fresh[0][COUNT - 1] = http_get(H1, "/k", NULL);
    fresh[1][COUNT - 1] = http_get(H2, "/k", NULL);
    for (size_t v = 0; v < 2; v++) {
        for (size_t i = 0; i < COUNT; i++) {
            cr_expect_eq(get(http_versions[v], "/k", headers[i], &again), 0, "%s", headers[i]);
            expect_same(&fresh[v][i], &again);
            answer_free(&again);
            answer_free(&fresh[v][i]);
        }
    }
    kv_buf_free(&content);
}

Test(frames, as_they_are_stored)
{
    all_forms(true);
}

Test(frames, decoded)
{
    all_forms(false);
}

Test(frames, are_counted)
{
    struct kv_buf content = http_content(BYTES, true);
    put("/k", &content);
    warm("/k", &content);
    cr_expect_eq(counted(METRICS_CACHE_FRAME_MISSES), 8);
    cr_expect_eq(counted(METRICS_CACHE_FRAME_HITS), 0);
    cr_expect_eq(counted(METRICS_CACHE_MISSES), 2);
    expect_from_memory(H1, "/k", &content);
    expect_from_memory(H2, "/k", &content);
    cr_expect_eq(counted(METRICS_CACHE_FRAME_HITS), 8);
    http_wait_until(counted(METRICS_CACHE_HITS) == 2);
    struct answer page = http_get(H2, "/metrics", NULL);
    cr_expect_not_null(strstr((char *)page.body.data, "\nkv_storage_cache_frame_hits_total 8\n"));
    answer_free(&page);
    size_t calls = fake_calls();
    struct answer head = http_method(H2, "HEAD", "/k", NULL), same = http_get(H1, "/k", "If-None-Match: *");
    cr_expect_eq(head.status, 200);
    cr_expect_eq((size_t)atoll(http_value(&head, "content-length")), content.bytes);
    cr_expect_eq(same.status, 304);
    cr_expect_eq(fake_calls(), calls);
    answer_free(&head);
    answer_free(&same);
    cr_expect_eq(counted(METRICS_CACHE_FRAME_HITS), 8, "these need none");
    http_wait_until(counted(METRICS_CACHE_HITS) == 4); /* behind the answer */
    cr_expect_eq(counted(METRICS_CACHE_MISSES), 2);
    kv_buf_free(&content);
}

Test(frames, writes_show_at_once)
{
    struct kv_buf one = http_content(BYTES, true), other = http_content(BYTES, false);
    struct answer answer;
    put("/k", &one);
    warm("/k", &one);
    expect_from_memory(H2, "/k", &one);
    put("/k", &other);
    cr_expect_gt(expect_whole(H2, "/k", &other), 0);
    put("/k", &one);
    cr_expect_eq(expect_whole(H2, "/k", &one), 0, "the content was gone from the store, and is the same again");
    put("/l", &one);
    cr_expect_eq(get(H2, "/l", NULL, &answer), 0, "another key with this content");
    cr_expect_str_eq(http_value(&answer, "x-refs"), "2");
    answer_free(&answer);
    answer = http_method(H2, "DELETE", "/l", NULL);
    answer_free(&answer);
    answer = http_method(H2, "DELETE", "/k", NULL);
    answer_free(&answer);
    get(H2, "/k", NULL, &answer);
    cr_expect_eq(answer.status, 404);
    answer_free(&answer);
    kv_buf_free(&one);
    kv_buf_free(&other);
}

/* Clients that take zstd get what is stored: its frames pass by, and never come to those that do not. */
Test(frames, as_they_are_stored_pass_by)
{
    struct kv_buf content = http_content(BYTES, false);
    struct answer first, again;
    put("/k", &content);
    get(H2, "/k", "Accept-Encoding: zstd", &first);
    cr_expect_str_eq(http_value(&first, "content-encoding"), "zstd");
    warm("/k", &content);
    expect_from_memory(H2, "/k", &content);
    cr_expect_gt(get(H2, "/k", "Accept-Encoding: zstd", &again), 0);
    cr_expect_str_eq(http_value(&again, "content-encoding"), "zstd");
    cr_expect(kv_slice_equal(kv_buf_peek(&again.body), kv_buf_peek(&first.body)));
    answer_free(&first);
    answer_free(&again);
    kv_buf_free(&content);
}

Test(frames, damage_is_not_kept)
{
    struct kv_buf content = http_content(BYTES, true);
    put("/k", &content);
    fake_garble(2 * KV_CONTENT_FRAME_BYTES + 100); /* in the third frame */
    for (unsigned i = 0; i < 3; i++) {
        struct answer answer;
        cr_expect_gt(get(H2, "/k", NULL, &answer), 0);
        cr_expect_lt(answer.body.bytes, content.bytes);
        answer_free(&answer);
    }
    http_wait_until(gauge(METRICS_GAUGE_CACHE_FRAMES) == 2);
    fake_garble(UINT64_MAX);
    cr_expect_gt(expect_whole(H2, "/k", &content), 0);
    cr_expect_eq(expect_whole(H2, "/k", &content), 0);
    kv_buf_free(&content);
}

/* A part of the value that fits is kept; the whole passes by. */
Test(frames, of_a_value_too_large_to_keep)
{
    struct kv_buf content = http_content(BYTES + 2 * KV_CONTENT_FRAME_BYTES, true);
    put("/k", &content);
    for (unsigned i = 0; i < 4; i++)
        cr_expect_gt(expect_whole(H2, "/k", &content), 0);
    for (unsigned i = 0; i < 3; i++) {
        struct answer answer;
        cr_expect_eq(get(H2, "/k", "Range: bytes=1000000-1000099", &answer) == 0, i == 2);
        cr_expect(kv_slice_equal(kv_buf_peek(&answer.body), kv_slice(content.data + 1000000, 100)));
        answer_free(&answer);
    }
    kv_buf_free(&content);
}

/* Clients that have asked and do not read: others come and want the room, and the value is written anew. */
Test(frames, stay_until_slow_clients_have_them)
{
    enum { SLOW = 4, OTHERS = 8 };
    struct kv_buf content = http_content(BYTES, true), other = http_content(BYTES, false);
    int fds[SLOW], few = 4096;
    setsockopt(http_server->plain_fd, SOL_SOCKET, SO_SNDBUF, &few, sizeof few);
    put("/k", &content);
    warm("/k", &content);
    for (unsigned i = 0; i < SLOW; i++) {
        fds[i] = http_connect();
        http_send(fds[i], "GET /k HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " TOKEN "\r\n\r\n");
        http_wait_until(counted(METRICS_CACHE_FRAME_HITS) == 4 * (i + 1));
    }
    put("/k", &other);
    for (unsigned i = 0; i < OTHERS; i++) {
        memset(other.data, (int)i, 1000);
        put("/other", &other);
        for (unsigned each = 0; each < 5 + i; each++)
            expect_whole(H2, "/other", &other);
    }
    http_wait_until(gauge(METRICS_GAUGE_CACHE_FRAME_BYTES) > CACHE_BYTES / 2 - BYTES);
    cr_expect_leq(gauge(METRICS_GAUGE_CACHE_FRAME_BYTES), CACHE_BYTES / 2);
    for (unsigned i = 0; i < SLOW; i++) {
        struct kv_buf all = http_receive(fds[i], HTTP_WAIT_MS);
        cr_assert_gt(all.bytes, content.bytes);
        cr_expect(kv_slice_equal(kv_slice(all.data + all.bytes - content.bytes, content.bytes), kv_buf_peek(&content)));
        kv_buf_free(&all);
        close(fds[i]);
    }
    kv_buf_free(&content);
    kv_buf_free(&other);
}

/* Nor does one that leaves in the middle keep them for ever: others get the room. */
Test(frames, are_let_go_when_clients_leave)
{
    enum { OTHERS = CACHE_BYTES / 2 / BYTES };
    struct kv_buf content = http_content(BYTES, true);
    int few = 4096;
    setsockopt(http_server->plain_fd, SOL_SOCKET, SO_SNDBUF, &few, sizeof few);
    put("/k", &content);
    warm("/k", &content);
    int fd = http_connect();
    http_send(fd, "GET /k HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN "\r\n\r\n");
    http_wait_until(counted(METRICS_CACHE_FRAME_HITS) == 4);
    close(fd);
    http_wait_until(gauge(METRICS_GAUGE_REQUESTS) == 0);
    for (unsigned i = 0; i < OTHERS; i++) {
        memset(content.data, (int)i, 1000);
        put("/other", &content);
        for (unsigned each = 0; each < 10; each++)
            expect_whole(H2, "/other", &content);
    }
    http_wait_until(gauge(METRICS_GAUGE_CACHE_FRAME_BYTES) >= (uint64_t)OTHERS * BYTES);
    kv_buf_free(&content);
}
