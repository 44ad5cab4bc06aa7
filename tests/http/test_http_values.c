/* Goal: PUT, GET, HEAD and DELETE of a key do what the HTTP contract says, the same on HTTP/1.1 and HTTP/2.
 * Method: libcurl against the real HTTP side over a backend in memory; statuses, headers and bodies compared. */
#include "digest.h"
#include "harness.h"

#include <stdlib.h>
#include <unistd.h>

#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void setup(void)
{
    http_defaults();
    http_start();
}

TestSuite(values, .init = setup, .fini = http_stop);

static struct kv_slice text(const char *string)
{
    return kv_slice_text(string);
}

static void expect_put(enum version version, const char *path, const char *body, const char *header, long status)
{
    struct answer answer = http_put(version, path, text(body), header);
    cr_expect_eq(answer.status, status, "PUT %s (%s): %ld instead of %ld: %s", path, header == NULL ? "" : header,
                 answer.status, status, answer.body.data);
    answer_free(&answer);
}

static void expect_status(enum version version, const char *method, const char *path, const char *header, long status)
{
    struct answer answer = http_method(version, method, path, header);
    cr_expect_eq(answer.status, status, "%s %s (%s): %ld instead of %ld: %s", method, path,
                 header == NULL ? "" : header, answer.status, status, answer.body.data);
    answer_free(&answer);
}

static void expect_get(enum version version, const char *path, const char *header, long status, const char *body)
{
    struct answer answer = http_get(version, path, header);
    cr_expect_eq(answer.status, status, "GET %s (%s): %ld instead of %ld", path, header == NULL ? "" : header,
                 answer.status, status);
    cr_expect_eq(answer.body.bytes, strlen(body), "GET %s: %zu bytes", path, answer.body.bytes);
    cr_expect_str_eq((const char *)answer.body.data, body);
    answer_free(&answer);
}

static void expect_header(const struct answer *answer, const char *name, const char *value)
{
    cr_expect_str_eq(http_value(answer, name), value, "%s: '%s' instead of '%s'", name, http_value(answer, name),
                     value);
}

static void put_get_head_delete(enum version version)
{
    struct answer answer = http_put(version, "/a", text("abc"), "Content-Type: text/x-test; a=b");
    cr_assert_eq(answer.status, 201);
    cr_expect_str_eq((const char *)answer.body.data, ABC "\n");
    expect_header(&answer, "etag", "\"" ABC "\"");
    expect_header(&answer, "x-content-sha256", ABC);
    expect_header(&answer, "x-hash", ABC);
    expect_header(&answer, "x-hash-algorithm", "sha256");
    expect_header(&answer, "x-deduplicated", "false");
    expect_header(&answer, "server", "kv-storage");
    cr_expect_eq(strlen(http_value(&answer, "x-request-id")), 32);
    answer_free(&answer);
    answer = http_put(version, "/b", text("abc"), NULL);
    cr_expect_eq(answer.status, 201);
    expect_header(&answer, "x-deduplicated", "true");
    answer_free(&answer);
    for (int head = 0; head < 2; head++) {
        answer = http_method(version, head ? "HEAD" : NULL, "/a", NULL);
        cr_expect_eq(answer.status, 200);
        cr_expect_str_eq((const char *)answer.body.data, head ? "" : "abc");
        expect_header(&answer, "content-length", "3");
        expect_header(&answer, "content-type", "text/x-test; a=b");
        expect_header(&answer, "etag", "\"" ABC "\"");
        expect_header(&answer, "x-content-sha256", ABC);
        expect_header(&answer, "x-hash", ABC);
        expect_header(&answer, "x-hash-algorithm", "sha256");
        expect_header(&answer, "x-refs", "2");
        expect_header(&answer, "accept-ranges", "bytes");
        expect_header(&answer, "vary", "Accept-Encoding");
        cr_expect_gt(atoll(http_value(&answer, "x-created-at")), 1700000000);
        cr_expect_eq(strlen(http_value(&answer, "last-modified")), 29);
        answer_free(&answer);
    }
    expect_put(version, "/a", "abd", NULL, 200);
    answer = http_get(version, "/a", NULL);
    expect_header(&answer, "content-type", "application/octet-stream");
    answer_free(&answer);
    expect_status(version, "DELETE", "/a", NULL, 204);
    expect_status(version, "DELETE", "/a", NULL, 404);
    expect_status(version, "DELETE", "/b", NULL, 204);
    expect_status(version, "GET", "/a", NULL, 404);
    expect_status(version, "HEAD", "/a", NULL, 404);
    cr_expect_eq(fake_objects(), 0);
}

Test(values, put_get_head_delete)
{
    put_get_head_delete(H1);
    put_get_head_delete(H2);
}

Test(values, sizes_at_the_edges)
{
    static const size_t sizes[] = {0, 1, 65535, 65536, 65537, 262143, 262144, 262145, 1048576};
    for (size_t i = 0; i < 2 * sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (size_t v = 0; v < 2; v++) {
            struct kv_buf content = http_content(sizes[i / 2], i % 2);
            struct answer put = http_put(http_versions[v], "/size", kv_buf_peek(&content), NULL);
            cr_assert(put.status == 200 || put.status == 201, "%zu bytes: %ld %s", content.bytes, put.status,
                      put.body.data);
            struct answer get = http_get(http_versions[v], "/size", NULL);
            cr_expect(kv_slice_equal(kv_buf_peek(&get.body), kv_buf_peek(&content)), "%zu bytes", content.bytes);
            answer_free(&put);
            answer_free(&get);
            kv_buf_free(&content);
        }
    }
}

Test(values, an_empty_value)
{
    for (size_t v = 0; v < 2; v++) {
        struct answer answer = http_put(http_versions[v], "/empty", text(""), NULL);
        cr_expect_str_eq((const char *)answer.body.data, EMPTY "\n");
        answer_free(&answer);
        answer = http_get(http_versions[v], "/empty", "Accept-Encoding: zstd");
        cr_expect_eq(answer.status, 200);
        expect_header(&answer, "content-length", "0");
        expect_header(&answer, "content-encoding", "");
        answer_free(&answer);
        expect_status(http_versions[v], "GET", "/empty", "Range: bytes=0-", 416);
        expect_status(http_versions[v], "GET", "/empty", "Range: bytes=-5", 200);
    }
}

Test(values, keys_are_taken_raw)
{
    static const char *const apart[] = {"/a/b",        "/a//b", "/a/../b",       "/b",     "/a%2F%2F%2Fb",
                                        "/%252F",      "/%2F",  "/%F0%9F%98%80", "/a%0Ab", "/keys/x",
                                        "/batch.json", "/-x",   "/%20"};
    for (size_t v = 0; v < 2; v++) {
        for (size_t i = 0; i < sizeof(apart) / sizeof(apart[0]); i++)
            expect_put(http_versions[v], apart[i], apart[i], NULL, v == 0 ? 201 : 200);
        for (size_t i = 0; i < sizeof(apart) / sizeof(apart[0]); i++)
            expect_get(http_versions[v], apart[i], NULL, 200, apart[i]);
        expect_get(http_versions[v], "/a%2fb?any=query", NULL, 200, "/a/b");
        expect_get(http_versions[v], "/%61/%62", NULL, 200, "/a/b");
    }
    cr_expect_eq(fake_keys(), sizeof(apart) / sizeof(apart[0]));
}

Test(values, keys_at_their_longest)
{
    char path[3 * (KV_KEY_BYTES_MAX + 1) + 2] = "/";
    for (unsigned i = 0; i < KV_KEY_BYTES_MAX; i++)
        strcpy(path + 1 + 3 * i, "%61");
    for (size_t v = 0; v < 2; v++) {
        expect_status(http_versions[v], "DELETE", path, NULL, 404);
        expect_put(http_versions[v], path, "long", NULL, 201);
        expect_get(http_versions[v], path, NULL, 200, "long");
        expect_status(http_versions[v], "DELETE", path, NULL, 204);
    }
    strcat(path, "b");
    expect_put(H1, path, "long", NULL, 414);
    expect_put(H2, path, "long", NULL, 414);
}

Test(values, the_hash_of_the_request_must_hold)
{
    for (size_t v = 0; v < 2; v++) {
        expect_put(http_versions[v], "/h", "abc", "X-Content-Sha256: " EMPTY, 400);
        expect_put(http_versions[v], "/h", "abc", "X-Content-Sha256: abc", 400);
        expect_put(http_versions[v], "/h", "abc", "X-Content-Sha256;", 400);
        expect_status(http_versions[v], "GET", "/h", NULL, 404);
        expect_put(http_versions[v], "/h", "abc",
                   "X-Content-Sha256: BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD", 201);
        expect_status(http_versions[v], "DELETE", "/h", NULL, 204);
    }
    cr_expect_eq(fake_objects(), 0);
}

static void conditional_writes(enum version version)
{
    expect_put(version, "/c", "abc", "If-Match: *", 412);
    expect_put(version, "/c", "abc", "If-Match: \"" ABC "\"", 412);
    expect_put(version, "/c", "abc", "If-None-Match: *", 201);
    expect_put(version, "/c", "xyz", "If-None-Match: *", 412);
    expect_put(version, "/c", "xyz", "If-Match: \"" EMPTY "\"", 412);
    expect_put(version, "/c", "xyz", "If-Match: W/\"" ABC "\"", 412);
    expect_put(version, "/c", "xyz", "If-Match: \"other\"", 412);
    expect_put(version, "/c", "abc", "If-Match: \"" ABC "\"", 200);
    expect_put(version, "/c", "abc", "If-Match: \"" ABC "-zstd\"", 200);
    expect_put(version, "/c", "abc", "If-Match: \"x\", \"" EMPTY "\", \"" ABC "\"", 200);
    expect_put(version, "/c", "xyz", "If-Match: \"" EMPTY "\", \"" EMPTY "-zstd\", \"x\"", 412);
    expect_put(version, "/c", "xyz", "If-None-Match: W/\"" ABC "\"", 412);
    expect_put(version, "/c", "abc", "If-None-Match: \"" EMPTY "\"", 200);
    expect_put(version, "/c", "abc", "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT", 412);
    expect_put(version, "/c", "abc", "If-Unmodified-Since: Sun, 06 Nov 2094 08:49:37 GMT", 200);
    expect_put(version, "/c", "abc", "If-Match: abc", 400);
    expect_put(version, "/c", "abc", "If-None-Match: \"a", 400);
    expect_get(version, "/c", NULL, 200, "abc");
    expect_status(version, "DELETE", "/c", "If-Match: \"" EMPTY "\"", 412);
    expect_status(version, "DELETE", "/c", "If-None-Match: *", 412);
    expect_status(version, "DELETE", "/c", "If-Match: \"" EMPTY "\", \"" ABC "\"", 204);
    expect_status(version, "DELETE", "/c", "If-Match: *", 412);
}

Test(values, conditional_writes)
{
    conditional_writes(H1);
    conditional_writes(H2);
}

Test(values, a_row_that_changes_under_a_condition_is_looked_at_again)
{
    expect_put(H1, "/race", "abc", NULL, 201);
    fake_race("race", 1); /* abc becomes something else between the look and the write */
    expect_put(H1, "/race", "xyz", "If-Match: \"" EMPTY "\", \"" ABC "\"", 412);
    expect_put(H1, "/race", "abc", NULL, 200);
    fake_race("race", 2);
    expect_put(H1, "/race", "xyz", "If-None-Match: \"" EMPTY "\"", 200);
    fake_race("race", 1000); /* it never holds still */
    expect_put(H1, "/race", "abc", "If-None-Match: \"" EMPTY "\"", 429);
    fake_race("race", 0);
}

static void conditional_reads(enum version version)
{
    expect_put(version, "/r", "abc", NULL, version == H1 ? 201 : 200);
    expect_get(version, "/r", "If-None-Match: \"" ABC "\"", 304, "");
    expect_get(version, "/r", "If-None-Match: \"x\", W/\"" ABC "-zstd\"", 304, "");
    expect_get(version, "/r", "If-None-Match: *", 304, "");
    expect_get(version, "/r", "If-None-Match: \"" EMPTY "\"", 200, "abc");
    expect_status(version, "HEAD", "/r", "If-None-Match: \"" ABC "\"", 304);
    expect_get(version, "/r", "If-Match: \"" ABC "\"", 200, "abc");
    expect_status(version, "GET", "/r", "If-Match: \"" EMPTY "\"", 412);
    expect_status(version, "GET", "/r", "If-Match: W/\"" ABC "\"", 412);
    expect_get(version, "/r", "If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT", 304, "");
    expect_get(version, "/r", "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT", 200, "abc");
    expect_get(version, "/r", "If-Modified-Since: yesterday", 200, "abc");
    expect_status(version, "GET", "/r", "If-Unmodified-Since: Sun Nov  6 08:49:37 1994", 412);
    expect_status(version, "GET", "/missing", "If-Match: \"" ABC "\"", 404);
    expect_status(version, "GET", "/r", "If-None-Match: abc", 400);
    struct answer answer = http_get(version, "/r", "If-None-Match: *");
    expect_header(&answer, "etag", "\"" ABC "\"");
    expect_header(&answer, "vary", "Accept-Encoding");
    answer_free(&answer);
}

Test(values, conditional_reads)
{
    conditional_reads(H1);
    conditional_reads(H2);
}

static void ranges(enum version version)
{
    expect_put(version, "/range", "0123456789", NULL, version == H1 ? 201 : 200);
    struct answer answer = http_get(version, "/range", "Range: bytes=2-4");
    cr_expect_eq(answer.status, 206);
    cr_expect_str_eq((const char *)answer.body.data, "234");
    expect_header(&answer, "content-range", "bytes 2-4/10");
    expect_header(&answer, "content-length", "3");
    answer_free(&answer);
    expect_get(version, "/range", "Range: bytes=-3", 206, "789");
    expect_get(version, "/range", "Range: bytes=7-", 206, "789");
    expect_get(version, "/range", "Range: bytes=7-99", 206, "789");
    expect_get(version, "/range", "Range: bytes=0-1,3-4", 200, "0123456789");
    expect_get(version, "/range", "Range: lines=0-1", 200, "0123456789");
    answer = http_get(version, "/range", "Range: bytes=10-");
    cr_expect_eq(answer.status, 416);
    expect_header(&answer, "content-range", "bytes */10");
    answer_free(&answer);
    answer = http_method(version, "HEAD", "/range", "Range: bytes=2-4");
    cr_expect_eq(answer.status, 200);
    expect_header(&answer, "content-length", "10");
    answer_free(&answer);
}

static void if_range(enum version version)
{
    static const char other[] = "If-Range: \"" ABC "\"";
    char own[128];
    struct answer answer = http_get(version, "/range", NULL);
    snprintf(own, sizeof(own), "If-Range: %s", http_value(&answer, "etag"));
    answer_free(&answer);
    const struct {
        const char *if_range;
        long status;
    } rows[] = {{own, 206},
                {other, 200},
                {"If-Range: W/\"x\"", 200},
                {"If-Range: Sun, 06 Nov 1994 08:49:37 GMT", 200},
                {"If-Range: nonsense", 200}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        answer =
            http_ask(version, &(struct request){.path = "/range", .headers = {"Range: bytes=2-4", rows[i].if_range}});
        cr_expect_eq(answer.status, rows[i].status, "%s: %ld", rows[i].if_range, answer.status);
        answer_free(&answer);
    }
}

Test(values, ranges)
{
    ranges(H1);
    if_range(H1);
    ranges(H2);
    if_range(H2);
}

Test(values, headers_of_a_put_are_checked)
{
    char long_type[KV_CONTENT_TYPE_BYTES_MAX + 32] = "Content-Type: ";
    memset(long_type + 14, 'x', KV_CONTENT_TYPE_BYTES_MAX);
    for (size_t v = 0; v < 2; v++) {
        expect_put(http_versions[v], "/t", "abc", "Content-Encoding: gzip", 400);
        expect_put(http_versions[v], "/t", "abc", "Content-Range: bytes 0-2/10", 400);
        long_type[14 + KV_CONTENT_TYPE_BYTES_MAX] = 'x';
        expect_put(http_versions[v], "/t", "abc", long_type, 400);
        cr_expect_eq(fake_keys(), 0);
        long_type[14 + KV_CONTENT_TYPE_BYTES_MAX] = '\0';
        expect_put(http_versions[v], "/t", "abc", long_type, 201);
        expect_put(http_versions[v], "/t", "abc", "Content-Encoding: identity", 200);
        expect_status(http_versions[v], "DELETE", "/t", NULL, 204);
    }
}

/* Whichever of the two were stored, somebody in between might have read the other. */
Test(values, several_content_types_are_refused)
{
    static const char *const pairs[][2] = {{"Content-Type: a/b", "Content-Type: c/d"},
                                           {"Content-Type: a/b", "Content-Type: a/b"}};
    for (size_t i = 0; i < 2 * sizeof(pairs) / sizeof(pairs[0]); i++) {
        const char *const *pair = pairs[i / 2];
        struct answer answer = http_ask(
            http_versions[i % 2],
            &(struct request){
                .method = "PUT", .path = "/t", .body = text("abc"), .has_body = true, .headers = {pair[0], pair[1]}});
        cr_expect_eq(answer.status, 400, "%s, %s: %ld", pair[0], pair[1], answer.status);
        cr_expect(strstr((const char *)answer.body.data, "Content-Type") != NULL, "%s", answer.body.data);
        answer_free(&answer);
    }
    cr_expect_eq(fake_keys(), 0);
}

Test(values, uploads_without_a_length)
{
    int fd = http_connect();
    http_send(fd, "PUT /chunked HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN
                  "\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    http_nap(50);
    http_send(fd, "2\r\nde\r\n0\r\n\r\n");
    struct kv_buf answer = http_receive_until(fd, "\r\n\r\n");
    cr_expect(strstr((char *)answer.data, " 201 Created") != NULL, "%s", answer.data);
    kv_buf_free(&answer);
    close(fd);
    expect_get(H2, "/chunked", NULL, 200, "abcde");
    fd = http_connect();
    http_send(fd, "PUT /expect HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN
                  "\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    answer = http_receive_until(fd, "\r\n\r\n");
    cr_expect(strstr((char *)answer.data, " 100 Continue") != NULL, "%s", answer.data);
    kv_buf_free(&answer);
    http_send(fd, "abc");
    answer = http_receive_until(fd, "\r\n\r\n");
    cr_expect(strstr((char *)answer.data, " 201 Created") != NULL, "%s", answer.data);
    kv_buf_free(&answer);
    close(fd);
}
