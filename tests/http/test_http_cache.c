/* Goal: an answer from the router's memory is the shards' answer, byte for byte and header by header, until something changes.
 * Method: the HTTP side over a twin of the backend that counts what reaches it: each request form twice, then a write in between. */
#include "harness.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "metrics_internal.h"
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
    fake_may_keep(false);
    put("/k", body); /* nothing of it is cached now */
    cr_expect_eq(get(version, "/k", header, &fresh), 1);
    fake_may_keep(true);
    get(version, "/k", NULL, &filling);
    cr_expect_eq(get(version, "/k", header, &cached), 0, "%s", header);
    expect_same(&fresh, &cached);
    answer_free(&fresh);
    answer_free(&filling);
    answer_free(&cached);
}

/* So is what a PUT leaves behind where a GET was before. */
static void compare_written(struct kv_slice body)
{
    struct answer read, cached, fresh;
    put("/k", text("before"));
    get(H2, "/k", NULL, &read);
    put("/k", body);
    cr_expect_eq(get(H2, "/k", NULL, &cached), 0, "%zu bytes", body.bytes);
    fake_forget();
    cr_expect_eq(get(H2, "/k", NULL, &fresh), 1);
    expect_same(&fresh, &cached);
    answer_free(&read);
    answer_free(&cached);
    answer_free(&fresh);
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

Test(cached, what_is_put)
{
    struct kv_buf random = http_content(1000, true), words = http_content(5000, false),
                  large = http_content(65536, true);
    struct answer answer;
    compare_written(kv_buf_peek(&random));
    compare_written(kv_buf_peek(&words)); /* compressed */
    compare_written(kv_buf_peek(&large));
    compare_written(text(""));
    put("/a", kv_buf_peek(&random));
    cr_expect_eq(get(H2, "/a", NULL, &answer), 1, "nobody has read it before");
    answer_free(&answer);
    put("/k", kv_buf_peek(&random));
    cr_expect_eq(get(H2, "/k", NULL, &answer), 1, "how many keys hold it is not known");
    cr_expect_str_eq(http_value(&answer, "x-refs"), "2");
    answer_free(&answer);
    fake_may_keep(false);
    put("/k", kv_buf_peek(&words));
    cr_expect_eq(get(H2, "/k", NULL, &answer), 1, "something is in doubt");
    answer_free(&answer);
    kv_buf_free(&random);
    kv_buf_free(&words);
    kv_buf_free(&large);
}

Test(cached, writes_show_at_once)
{
    put("/a", text("one"));
    expect_get("/a", "one", "1", 1);
    expect_get("/a", "one", "1", 0);
    put("/a", text("two"));
    expect_get("/a", "two", "1", 0);
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
    fake_forget(); /* what the PUT left in memory */
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

/* ---- slow clients ------------------------------------------------------------------------------------------------- */

enum { SLOW = 8, LARGE_BYTES = 65536, RING_BYTES = 1 << 20 };

/* Its answer stays with the router until it is read: buffers on both sides are far smaller. */
static int connect_slowly(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(http_port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), few = 4096;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &few, sizeof few);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void name_of(unsigned number, char out[16])
{
    snprintf(out, 16, "/large/%u", number);
}

static void put_large(unsigned number)
{
    char path[16];
    struct kv_buf body = http_content(LARGE_BYTES, true);
    name_of(number, path);
    memset(body.data, (int)('A' + number % 64), LARGE_BYTES / 2); /* in all places another content */
    memset(body.data + LARGE_BYTES / 2, (int)('a' - number % 64), LARGE_BYTES / 2 - 16);
    memcpy(body.data, path, strlen(path));
    put(path, kv_buf_peek(&body));
    kv_buf_free(&body);
}

static struct answer get_large(unsigned number, size_t calls_max)
{
    char path[16];
    struct answer answer;
    name_of(number, path);
    cr_expect_leq(get(H2, path, NULL, &answer), calls_max, "%s", path);
    return answer;
}

static void ask_slowly(int fd, unsigned number)
{
    char path[16], head[128];
    name_of(number, path);
    snprintf(head, sizeof head,
             "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " TOKEN "\r\n\r\n", path);
    http_send(fd, head);
}

static void expect_body(int fd, const struct answer *wanted)
{
    struct kv_buf all = http_receive(fd, HTTP_WAIT_MS);
    cr_assert_gt(all.bytes, wanted->body.bytes);
    struct kv_slice body = kv_slice(all.data + all.bytes - wanted->body.bytes, wanted->body.bytes);
    cr_expect(kv_slice_equal(body, kv_buf_peek(&wanted->body)), "what was lent out has changed");
    kv_buf_free(&all);
}

static uint64_t hits(void)
{
    return kv_counter_get(&http_server->threads[0].metrics->counters[METRICS_CACHE_HITS]);
}

static void setup_small(void)
{
    http_defaults();
    http_settings.router_threads = 1;
    http_settings.cache_bytes = 2 * RING_BYTES; /* half of it is for frames */
    http_start();
    fake_may_keep(true);
}

TestSuite(cached_slowly, .init = setup_small, .fini = http_stop);

Test(cached_slowly, answers_stay_as_they_are_though_the_ring_turns)
{
    struct answer wanted[SLOW];
    int fds[SLOW], few = 4096;
    setsockopt(http_server->plain_fd, SOL_SOCKET, SO_SNDBUF, &few, sizeof few);
    for (unsigned i = 0; i < SLOW; i++) {
        put_large(i);
        wanted[i] = get_large(i, 1);
        ask_slowly(fds[i] = connect_slowly(), i);
        http_wait_until(hits() == i + 1);
    }
    for (unsigned i = 0; i < SLOW / 2; i++)
        put_large(i); /* the entries go, what was lent out stays */
    for (unsigned i = SLOW; i < SLOW + 4 * RING_BYTES / LARGE_BYTES; i++) {
        put_large(i);
        for (unsigned each = 0; each < 2; each++) {
            struct answer answer = get_large(i, 1 - each);
            cr_expect_eq(answer.body.bytes, LARGE_BYTES);
            answer_free(&answer);
        }
        if (i == 2 * SLOW)
            close(fds[0]); /* one does not wait for the rest */
    }
    for (unsigned i = 0; i < SLOW; i++) {
        if (i > 0)
            expect_body(fds[i], &wanted[i]);
        if (i > 0)
            close(fds[i]);
        answer_free(&wanted[i]);
    }
}
