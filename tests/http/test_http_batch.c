/* Goal: POST /batch over real HTTP: formats, statuses, limits; large bodies and answers go through the thread kv-batch and leave
 * the loop free; clients that leave in the middle leave nothing behind.
 * Method: libcurl on both versions against the HTTP side over a backend in memory; answers parsed by jansson. */
#include "harness.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#include "metrics.h"
#include "thread.h"

static void setup(void)
{
    http_defaults();
    http_settings.batch_bytes_max = 8 * KV_MIB;
    http_settings.value_bytes_max = 6 * KV_MIB;
    http_start();
}

TestSuite(batch, .init = setup, .fini = http_stop);

static struct answer post(enum version version, struct kv_slice body, const char *type, const char *accept)
{
    return http_ask(version,
                    &(struct request){
                        .method = "POST", .path = "/batch", .headers = {type, accept}, .body = body, .has_body = true});
}

static struct answer post_text(enum version version, const char *body)
{
    return post(version, kv_slice_text(body), "Content-Type: application/json", NULL);
}

static void expect(enum version version, const char *body, const char *type, long status, const char *answered)
{
    struct answer answer = post(version, kv_slice_text(body), type, NULL);
    cr_expect_eq(answer.status, status, "%s: %ld %s", body, answer.status, answer.body.data);
    cr_expect_str_eq((const char *)answer.body.data, answered);
    answer_free(&answer);
}

#define X "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"

static void in_order(enum version version)
{
    expect(version,
           "[{\"op\":\"put\",\"key\":\"a\",\"value\":\"x\"},{\"op\":\"get\",\"key\":\"a\"},"
           "{\"op\":\"delete\",\"key\":\"a\"},{\"op\":\"get\",\"key\":\"a\"},{\"op\":\"delete\",\"key\":\"a\"},"
           "{\"op\":\"put\",\"key\":\"batch\",\"value\":\"x\",\"if_none_match\":\"*\"},{\"op\":\"delete\",\"key\":"
           "\"batch\"}]",
           "Content-Type: application/json", 200,
           "{\"results\":[{\"put\":{\"key\":\"a\",\"hash\":\"" X "\",\"created\":true}},"
           "{\"get\":{\"key\":\"a\",\"value\":\"x\",\"found\":true}},{\"delete\":{\"key\":\"a\",\"deleted\":true}},"
           "{\"get\":{\"key\":\"a\",\"found\":false}},{\"delete\":{\"key\":\"a\",\"deleted\":false}},"
           "{\"put\":{\"key\":\"batch\",\"hash\":\"" X
           "\",\"created\":true}},{\"delete\":{\"key\":\"batch\",\"deleted\":true}}]}");
    cr_expect_eq(fake_keys(), 0);
}

Test(batch, in_order)
{
    in_order(H1);
    in_order(H2);
}

Test(batch, all_or_nothing)
{
    expect(H2,
           "[{\"op\":\"put\",\"key\":\"a\",\"value\":\"1\"},{\"op\":\"put\",\"key\":\"b\",\"value\":\"2\",\"if_match\":"
           "\"*\"}]",
           NULL, 412, "Error: Operation 1: its precondition does not hold; nothing was done.\n");
    cr_expect_eq(fake_keys(), 0);
    expect(H2,
           "[{\"op\":\"put\",\"key\":\"a\",\"value\":\"1\"},{\"op\":\"put\",\"key\":\"a\",\"value\":\"2\",\"if_none_"
           "match\":\"*\"}]",
           NULL, 412, "Error: Operation 1: its precondition does not hold; nothing was done.\n");
    size_t calls = fake_calls();
    expect(H2, "[{\"op\":\"put\",\"key\":\"a\",\"value\":\"1\"},{\"op\":\"put\",\"key\":\"b\"}]", NULL, 400,
           "Error: Operation 1: the member \"value\" is missing.\n");
    cr_expect_eq(fake_calls(), calls, "a malformed batch reaches nobody");
    expect(H1, "[]", NULL, 200, "{\"results\":[]}");
    expect(H1, "", NULL, 400, "Error: The body is not a JSON array of operations.\n");
}

Test(batch, content_types)
{
    static const struct {
        const char *type;
        long status;
        const char *answered;
    } cases[] = {
        {"Content-Type:", 200, "application/json"},
        {"Content-Type: application/json; charset=utf-8", 200, "application/json"},
        {"Content-Type: APPLICATION/JSON", 200, "application/json"},
        {"Content-Type: application/x-www-form-urlencoded", 200, "application/json"},
        {"Content-Type: application/vnd.x+json", 200, "application/json"},
        {"Content-Type: text/plain", 200, "application/json"},
        {"Content-Type: application/xml", 415, "text/plain; charset=utf-8"},
        {"Content-Type: multipart/form-data; boundary=x", 415, "text/plain; charset=utf-8"},
        {"Content-Type: application/msgpack", 400, "text/plain; charset=utf-8"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct answer answer = post(H1, kv_slice_text("[]"), cases[i].type, NULL);
        cr_expect_eq(answer.status, cases[i].status, "%s: %ld %s", cases[i].type, answer.status, answer.body.data);
        cr_expect_str_eq(http_value(&answer, "content-type"), cases[i].answered);
        answer_free(&answer);
    }
    struct answer answer = post(H2, kv_slice_text("\x90"), "Content-Type: application/msgpack", NULL);
    cr_expect_eq(answer.status, 200);
    cr_expect_str_eq(http_value(&answer, "content-type"), "application/msgpack");
    cr_expect_str_eq((const char *)answer.body.data, "\x81\xa7results\x90");
    answer_free(&answer);
    answer = post(H1, kv_slice_text("[]"), "Content-Encoding: gzip", NULL);
    cr_expect_eq(answer.status, 400);
    answer_free(&answer);
    answer = post(H1, kv_slice_text("[1]"), "Accept: application/json", NULL);
    cr_expect_str_eq((const char *)answer.body.data,
                     "{\"error\":{\"code\":\"invalid_request\",\"message\":\"Operation 0: it "
                     "is not an object.\"}}");
    answer_free(&answer);
}

/* {"op":"put"} of a text of that many letters. */
static void append_put(struct kv_buf *body, const char *key, size_t bytes, char letter)
{
    char begin[128];
    snprintf(begin, sizeof(begin), "{\"op\":\"put\",\"key\":\"%s\",\"value\":\"", key);
    kv_buf_append(body, kv_slice_text(begin));
    memset(kv_buf_reserve(body, bytes), letter, bytes);
    body->bytes += bytes;
    kv_buf_append(body, kv_slice_text("\"}"));
}

static json_t *parse(struct answer *answer)
{
    json_error_t error;
    json_t *root = json_loadb((const char *)answer->body.data, answer->body.bytes, 0, &error);
    cr_assert_not_null(root, "%s", error.text);
    answer_free(answer);
    return root;
}

/* More than the router expects of a few gets: it begins again with as much, and nothing is done twice. */
Test(batch, gets_that_find_much)
{
    struct kv_buf content = http_content(3 * KV_MIB, false);
    struct answer put = http_put(H2, "/much", kv_buf_peek(&content), NULL);
    cr_assert_eq(put.status, 201);
    answer_free(&put);
    kv_buf_free(&content);
    size_t calls = fake_calls();
    struct answer answer = post_text(H2, "[{\"op\":\"put\",\"key\":\"new\",\"value\":\"x\",\"if_none_match\":\"*\"},"
                                         "{\"op\":\"get\",\"key\":\"much\"},{\"op\":\"get\",\"key\":\"much\"}]");
    cr_expect_eq(answer.status, 200, "%ld", answer.status);
    json_t *root = parse(&answer);
    json_t *get = json_object_get(json_array_get(json_object_get(root, "results"), 2), "get");
    cr_expect_eq(json_string_length(json_object_get(get, "value")), 3 * KV_MIB);
    json_decref(root);
    cr_expect_eq(fake_calls(), calls + 2);
    cr_expect_eq(fake_keys(), 2);
    http_wait_until(fake_unreleased() == 0);
}

static void large(enum version version)
{
    struct kv_buf body = {0};
    kv_buf_append(&body, kv_slice_text("["));
    append_put(&body, "m", 3 * KV_MIB, 'm');
    kv_buf_append(&body, kv_slice_text(","));
    append_put(&body, "n", 4 * KV_MIB, 'n');
    kv_buf_append(&body, kv_slice_text(",{\"op\":\"get\",\"key\":\"m\"}]"));
    struct answer answer = post(version, kv_buf_peek(&body), NULL, NULL);
    cr_assert_eq(answer.status, 200, "%ld %s", answer.status, answer.body.data);
    json_t *root = parse(&answer);
    json_t *get = json_object_get(json_array_get(json_object_get(root, "results"), 2), "get");
    cr_expect_eq(json_string_length(json_object_get(get, "value")), 3 * KV_MIB);
    cr_expect_eq(json_string_value(json_object_get(get, "value"))[3 * KV_MIB - 1], 'm');
    json_decref(root);
    kv_buf_free(&body);
    answer = post_text(
        version, "[{\"op\":\"get\",\"key\":\"n\"},{\"op\":\"get\",\"key\":\"n\"},{\"op\":\"get\",\"key\":\"n\"}]");
    cr_expect_eq(answer.status, 413);
    cr_expect_str_eq((const char *)answer.body.data, "Error: The values that the gets ask for are larger together than "
                                                     "MAX_BATCH_BYTES (8388608); nothing was done.\n");
    answer_free(&answer);
}

Test(batch, large_bodies_and_answers)
{
    large(H1);
    large(H2);
}

Test(batch, limits)
{
    struct kv_buf body = {0};
    kv_buf_append(&body, kv_slice_text("[{\"op\":\"get\",\"key\":\"k\"}"));
    for (unsigned i = 1; i < KV_BATCH_OPS_MAX; i++)
        kv_buf_append(&body, kv_slice_text(",{\"op\":\"get\",\"key\":\"k\"}"));
    kv_buf_append(&body, kv_slice_text("]"));
    struct answer answer = post(H2, kv_buf_peek(&body), NULL, NULL);
    cr_expect_eq(answer.status, 200);
    json_t *root = parse(&answer);
    cr_expect_eq(json_array_size(json_object_get(root, "results")), KV_BATCH_OPS_MAX);
    json_decref(root);
    body.bytes--;
    kv_buf_append(&body, kv_slice_text(",{\"op\":\"get\",\"key\":\"k\"}]"));
    answer = post(H2, kv_buf_peek(&body), NULL, NULL);
    cr_expect_eq(answer.status, 413);
    cr_expect_str_eq((const char *)answer.body.data, "Error: A batch has at most 10000 operations.\n");
    answer_free(&answer);
    body.bytes = 0;
    kv_buf_append(&body, kv_slice_text("["));
    append_put(&body, "k", 8 * KV_MIB, 'x');
    kv_buf_append(&body, kv_slice_text("]"));
    answer = post(H1, kv_buf_peek(&body), NULL, NULL);
    cr_expect_eq(answer.status, 413);
    cr_expect(strstr((const char *)answer.body.data, "MAX_BATCH_BYTES allows 8388608") != NULL, "%s", answer.body.data);
    answer_free(&answer);
    body.bytes = 0;
    kv_buf_append(&body, kv_slice_text("["));
    append_put(&body, "k", 6 * KV_MIB + 1, 'x');
    kv_buf_append(&body, kv_slice_text("]"));
    answer = post(H1, kv_buf_peek(&body), NULL, NULL);
    cr_expect_eq(answer.status, 413);
    cr_expect(strstr((const char *)answer.body.data, "Operation 0: the value has 6291457 bytes") != NULL, "%s",
              answer.body.data);
    answer_free(&answer);
    kv_buf_free(&body);
    cr_expect_eq(fake_keys(), 0);
}

Test(batch, what_the_backend_says)
{
    static const struct {
        enum kv_err err;
        long status;
        const char *header;
    } cases[] = {{KV_OVERLOADED, 429, "retry-after"}, {KV_NO_SPACE, 507, NULL}, {KV_UNAVAILABLE, 503, "retry-after"},
                 {KV_UNCERTAIN, 504, NULL},           {KV_CORRUPT, 500, NULL},  {KV_IO, 500, NULL}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        fake_fail_next(cases[i].err);
        struct answer answer = post_text(H2, "[{\"op\":\"put\",\"key\":\"k\",\"value\":\"v\"}]");
        cr_expect_eq(answer.status, cases[i].status, "%s: %ld", kv_err_text(cases[i].err), answer.status);
        if (cases[i].header != NULL)
            cr_expect_str_eq(http_value(&answer, cases[i].header), "1");
        answer_free(&answer);
    }
    struct answer answer = http_get(H1, "/metrics", NULL);
    cr_expect(strstr((const char *)answer.body.data, "\nkv_storage_checksum_failures_total 1\n") != NULL);
    cr_expect(strstr((const char *)answer.body.data, "\nkv_storage_transactions_total{outcome=\"uncertain\"} 1\n") !=
              NULL);
    answer_free(&answer);
}

Test(batch, only_post)
{
    static const char *const methods[] = {"GET", "PUT", "DELETE", "PATCH"};
    for (size_t i = 0; i < 4; i++) {
        struct answer answer = http_method(H1, methods[i], "/batch", NULL);
        cr_expect_eq(answer.status, 405);
        cr_expect_str_eq(http_value(&answer, "allow"), "POST");
        answer_free(&answer);
    }
    struct answer answer = http_ask(
        H1, &(struct request){
                .method = "POST", .path = "/batch", .body = kv_slice_text("[]"), .has_body = true, .no_token = true});
    cr_expect_eq(answer.status, 401);
    answer_free(&answer);
}

/* ---- clients that leave ------------------------------------------------------------------------------------------- */

static struct kv_buf large_body(void)
{
    struct kv_buf body = {0};
    kv_buf_append(&body, kv_slice_text("["));
    append_put(&body, "left", 2 * KV_MIB, 'x');
    kv_buf_append(&body, kv_slice_text(",{\"op\":\"get\",\"key\":\"left\"}]"));
    return body;
}

/* Raw HTTP/1: sends everything, the caller closes. */
static int send_large(void)
{
    char head[256];
    struct kv_buf body = large_body();
    int fd = http_connect();
    snprintf(head, sizeof(head),
             "POST /batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN "\r\nContent-Length: %zu\r\n\r\n",
             body.bytes);
    http_send(fd, head);
    for (size_t at = 0; at < body.bytes;) {
        ssize_t sent = write(fd, body.data + at, body.bytes - at);
        cr_assert(sent > 0);
        at += (size_t)sent;
    }
    kv_buf_free(&body);
    return fd;
}

static size_t drop_bytes(char *data, size_t size, size_t count, void *arg)
{
    (void)data;
    (void)arg;
    return size * count;
}

static int leave_once_called(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)a, (void)b, (void)c, (void)d;
    return fake_calls() >= *(const size_t *)arg;
}

/* HTTP/2, which h2o watches while a request is worked on: the connection is closed after `wait_ms`, or once the backend has had so many
 * calls. */
static void post_and_leave(long wait_ms, size_t calls)
{
    char url[64];
    struct kv_buf body = large_body();
    CURL *curl = curl_easy_init();
    struct curl_slist *headers = curl_slist_append(NULL, "Authorization: Bearer " TOKEN);
    snprintf(url, sizeof(url), "http://127.0.0.1:%u/batch", http_port);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.data);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.bytes);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, drop_bytes);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, wait_ms);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, leave_once_called);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &calls);
    curl_easy_perform(curl);
    curl_easy_cleanup(curl);
    curl_slist_free_all(headers);
    kv_buf_free(&body);
}

static size_t count_exchanges(void)
{
    size_t count = 0;
    for (unsigned i = 0; i < http_server->thread_count; i++)
        count += http_server->threads[i].exchanges;
    return count;
}

/* the thread sanitizer makes each large batch ten times as slow */
#ifdef __SANITIZE_THREAD__
enum { LEAVERS = 6 };
#else
enum { LEAVERS = 40 };
#endif

/* At many moments: while the body is copied, read, transacted, the answer written and sent. */
Test(batch, clients_that_leave)
{
    for (int i = 0; i < LEAVERS; i++) {
        int fd = send_large();
        usleep((useconds_t)(i * 700));
        close(fd);
        post_and_leave(1 + i, SIZE_MAX);
    }
    http_wait_until(count_exchanges() == 0);
    http_wait_until(fake_unreleased() == 0);
}

Test(batch, a_client_that_leaves_while_the_backend_works)
{
    fake_hold(true);
    size_t calls = fake_calls();
    post_and_leave(HTTP_WAIT_MS, calls + 1);
    cr_assert_eq(fake_calls(), calls + 1);
    http_wait_until(count_exchanges() == 0);
    cr_expect_eq(fake_unreleased(), 1, "the transaction goes on");
    fake_hold(false);
    http_wait_until(fake_unreleased() == 0);
    cr_expect_eq(fake_keys(), 1);
}
