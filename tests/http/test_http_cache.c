/* Goal: an answer from the router's memory is the shards' answer, byte for byte and header by header, until something changes.
 * Method: the HTTP side over a twin of the backend that counts what reaches it: each request form twice, then a write in between. */
#include "harness.h"

#include <stdlib.h>

#include "thread.h"

static void setup(void)
{
    http_defaults();
    http_settings.router_threads = 1; /* each has a cache of its own */
    http_start();
    fake_may_keep(true);
}

TestSuite(cached, .init = setup, .fini = http_stop);

static struct kv_slice text(const char *string)
{
    return kv_slice_text(string);
}

static void put(const char *path, struct kv_slice body)
{
    struct answer answer = http_put(H2, path, body, "Content-Type: text/x-test");
    cr_assert(answer.status == 200 || answer.status == 201, "%ld", answer.status);
    answer_free(&answer);
}

/* Returns how many calls reached the backend. */
static size_t get(enum version version, const char *path, const char *header, struct answer *out)
{
    size_t before = fake_calls();
    *out = http_get(version, path, header);
    return fake_calls() - before;
}

static void expect_same(const struct answer *one, const struct answer *other)
{
    static const char *const names[] = {"content-type",
                                        "content-length",
                                        "etag",
                                        "vary",
                                        "last-modified",
                                        "accept-ranges",
                                        "x-content-sha256",
                                        "x-hash",
                                        "x-hash-algorithm",
                                        "x-refs",
                                        "x-created-at",
                                        "content-encoding",
                                        "content-range"};
    cr_expect_eq(one->status, other->status);
    cr_expect(kv_slice_equal(kv_buf_peek(&one->body), kv_buf_peek(&other->body)));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        cr_expect_str_eq(http_value(one, names[i]), http_value(other, names[i]), "%s", names[i]);
}

/* The cached form of an answer is the one from the shards. */
static void compare(enum version version, struct kv_slice body, const char *header)
{
    struct answer fresh, filling, cached;
    put("/k", body); /* nothing of it is cached now */
    fake_may_keep(false);
    cr_expect_eq(get(version, "/k", header, &fresh), 1);
    fake_may_keep(true);
    get(version, "/k", NULL, &filling);
    cr_expect_eq(get(version, "/k", header, &cached), 0, "%s", header);
    expect_same(&fresh, &cached);
    answer_free(&fresh);
    answer_free(&filling);
    answer_free(&cached);
}

static void all_forms(enum version version, struct kv_slice body)
{
    static const char *const headers[] = {NULL,
                                          "Range: bytes=1-3",
                                          "Range: bytes=-2",
                                          "Range: bytes=900000-",
                                          "If-None-Match: *",
                                          "If-Match: \"x\"",
                                          "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT",
                                          "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:01 GMT",
                                          "Accept-Encoding: zstd",
                                          "Accept-Encoding: gzip",
                                          "If-Range: \"x\"",
                                          "If-Match: broken"};
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        if (headers[i] == NULL || strcmp(headers[i], "If-Match: broken") != 0)
            compare(version, body, headers[i]);
    struct answer answer;
    cr_expect_eq(get(version, "/k", headers[sizeof headers / sizeof *headers - 1], &answer), 0);
    cr_expect_eq(answer.status, 400);
    answer_free(&answer);
}

static void all_contents(enum version version)
{
    struct kv_buf random = http_content(1000, true), words = http_content(5000, false),
                  large = http_content(65536, true);
    all_forms(version, kv_buf_peek(&random));
    all_forms(version, kv_buf_peek(&words)); /* compressed */
    all_forms(version, kv_buf_peek(&large));
    all_forms(version, text("abc"));
    compare(version, text(""), NULL);
    kv_buf_free(&random);
    kv_buf_free(&words);
    kv_buf_free(&large);
}

Test(cached, http1)
{
    all_contents(H1);
}

Test(cached, http2)
{
    all_contents(H2);
}

Test(cached, head)
{
    struct answer first, second;
    put("/k", text("abc"));
    get(H2, "/k", NULL, &first);
    size_t before = fake_calls();
    second = http_method(H2, "HEAD", "/k", NULL);
    cr_expect_eq(fake_calls(), before);
    cr_expect_eq(second.body.bytes, 0);
    cr_expect_str_eq(http_value(&second, "etag"), http_value(&first, "etag"));
    cr_expect_str_eq(http_value(&second, "content-length"), "3");
    answer_free(&first);
    answer_free(&second);
}

static void expect_get(const char *path, const char *body, const char *refs, size_t calls)
{
    struct answer answer;
    cr_expect_eq(get(H2, path, NULL, &answer), calls, "%s", path);
    cr_expect(kv_slice_equal(kv_buf_peek(&answer.body), text(body)));
    cr_expect_str_eq(http_value(&answer, "x-refs"), refs);
    answer_free(&answer);
}

Test(cached, writes_show_at_once)
{
    put("/a", text("one"));
    expect_get("/a", "one", "1", 1);
    expect_get("/a", "one", "1", 0);
    put("/a", text("two"));
    expect_get("/a", "two", "1", 1);
    put("/b", text("two"));
    expect_get("/a", "two", "2", 1); /* another key's write changed the count */
    expect_get("/a", "two", "2", 0);
    struct answer answer = http_method(H2, "DELETE", "/b", NULL);
    answer_free(&answer);
    expect_get("/a", "two", "1", 1);
    answer = http_method(H2, "DELETE", "/a", NULL);
    answer_free(&answer);
    cr_expect_eq(get(H2, "/a", NULL, &answer), 1);
    cr_expect_eq(answer.status, 404);
    answer_free(&answer);
}

Test(cached, damaged_and_large_contents_are_not_kept)
{
    struct kv_buf large = http_content(65537, true);
    struct answer answer;
    put("/large", kv_buf_peek(&large));
    for (int i = 0; i < 2; i++) {
        cr_expect_geq(get(H2, "/large", NULL, &answer), 1);
        cr_expect_eq(answer.body.bytes, large.bytes);
        answer_free(&answer);
    }
    put("/bad", text("abcdef"));
    fake_garble(14);
    for (int i = 0; i < 2; i++) {
        cr_expect_eq(get(H2, "/bad", NULL, &answer), 1);
        cr_expect_eq(answer.status, 500);
        answer_free(&answer);
    }
    fake_garble(UINT64_MAX);
    expect_get("/bad", "abcdef", "1", 1);
    expect_get("/bad", "abcdef", "1", 0);
    kv_buf_free(&large);
}
