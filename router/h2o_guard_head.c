/* router/h2o_guard_head.c -- see h2o_guard.h. This file: heads of HTTP/1 requests, and refusals in our own words.
 * libh2o takes what RFC 9112 calls dangerous (two lengths, a length beside chunks: whoever stands in front may see other borders
 * between requests than we do), invites bodies that will be refused anyway, and answers what it does refuse in its own words,
 * before any token was looked at. Here its parser's result is looked at first: a request that must not go on loses its body, and
 * a handler gets it at once, with a refusal that http.c puts in the contract's order. After the answer the connection ends.
 * What the library finds out later (chunks that are none) takes the same way: h2o_send_error_generic. */
#include "h2o_guard.h"

#include <dlfcn.h>
#include <h2o/http2.h>
#include <h2o/http2_internal.h>
#include <strings.h>

#include "body.h"
#include "h2o_guard_internal.h"
#include "http.h"
#include "kv/log.h"
#include "list.h"
#include "thread.h"

enum { HEADERS_TOLD_MAX = 1024 }; /* so many are counted, to tell too many from malformed ones */

static const struct guard_refusal malformed = {400, "invalid_request", "This is no HTTP request.", true};
static const struct guard_refusal head_too_large = {431, "invalid_request",
                                                    "The headers have more than HEADER_BYTES_MAX bytes.", true};
static const struct guard_refusal target_too_long = {414, "key_too_long", "The request target is far too long.", true};
static const struct guard_refusal too_many_headers = {431, "invalid_request", "The request has more than 100 headers.",
                                                      true};
static const struct guard_refusal folded = {400, "invalid_request", "A header goes on in the next line.", false};
static const struct guard_refusal host = {400, "invalid_request", "A request has exactly one Host.", false};
static const struct guard_refusal lengths = {400, "invalid_request",
                                             "Content-Length is no number, or is there with different ones.", false};
static const struct guard_refusal two_ways = {400, "invalid_request",
                                              "Content-Length and Transfer-Encoding exclude each other.", false};
static const struct guard_refusal coding = {400, "invalid_request",
                                            "The only Transfer-Encoding here is chunked, in HTTP/1.1.", false};
static const struct guard_refusal expectation = {417, "invalid_request", "The only Expect here is 100-continue.",
                                                 false};
static const struct guard_refusal too_large = {413, "too_large", "The body is larger than any that is taken here.",
                                               false};
static const struct guard_refusal chunks = {400, "invalid_request", "The body is not chunked as it should be.", false};
static const struct guard_refusal characters = {400, "invalid_request", "A header holds characters that it must not.",
                                                false};
static const struct guard_refusal no_body = {400, "invalid_request", "Content-Length announces a body that never came.",
                                             false};
/* Nothing is wrong but what the handler will find: only the body is not wanted any more. */
static const struct guard_refusal not_invited = {0, NULL, NULL, false};

struct guard_head_library guard_head_library;

static __thread const struct guard_refusal *found; /* for the handler that is called next */

/* HTTP/2 whose head ends the stream. The library compares the two lengths only where a body begins; a PUT would lose its value. */
static bool lacks_body(const h2o_req_t *req)
{
    const h2o_http2_stream_t *stream =
        (const h2o_http2_stream_t *)((const char *)req - offsetof(h2o_http2_stream_t, req));
    return req->version >= 0x200 && stream->_req_body == NULL && stream->_expected_content_length != SIZE_MAX &&
           stream->_expected_content_length != 0;
}

const struct guard_refusal *h2o_guard_refusal(const h2o_req_t *req)
{
    const struct guard_refusal *refusal = found;
    found = NULL;
    return refusal == NULL && lacks_body(req) ? &no_body : refusal;
}

/* ---- a parsed head ------------------------------------------------------------------------------------------------ */

struct head {
    struct kv_slice method, path;
    int minor_version;
    struct guard_header *headers;
    size_t count;
};

static bool is_named(const struct guard_header *header, const char *name)
{
    return header->name != NULL && header->name_len == strlen(name) &&
           strncasecmp(header->name, name, header->name_len) == 0;
}

static struct kv_slice value_of(const struct guard_header *header)
{
    return kv_slice(header->value, header->value_len);
}

static const struct guard_header *find(const struct head *head, const char *name, size_t *count)
{
    const struct guard_header *first = NULL;
    *count = 0;
    for (size_t i = 0; i < head->count; i++)
        if (is_named(&head->headers[i], name) && (*count)++ == 0)
            first = &head->headers[i];
    return first;
}

/* SIZE_MAX: no number of bytes that can be. */
static size_t length_in(const struct guard_header *header)
{
    return h2o_strtosize(header->value, header->value_len);
}

static const struct guard_refusal *check_body(const struct head *head, size_t *length)
{
    size_t length_count, coding_count;
    const struct guard_header *by_length = find(head, "content-length", &length_count);
    const struct guard_header *by_coding = find(head, "transfer-encoding", &coding_count);
    *length = by_coding != NULL ? SIZE_MAX : by_length != NULL ? length_in(by_length) : 0;
    if (coding_count > 0 && length_count > 0)
        return &two_ways;
    if (coding_count > 1 || (coding_count == 1 && head->minor_version == 0) ||
        (coding_count == 1 && !list_is(value_of(by_coding), "chunked")))
        return &coding;
    if (length_count > 0 && *length == SIZE_MAX)
        return &lengths;
    for (size_t i = 0; i < head->count; i++)
        if (is_named(&head->headers[i], "content-length") && length_in(&head->headers[i]) != *length)
            return &lengths;
    return NULL;
}

static const struct guard_refusal *check_lines(const struct head *head)
{
    size_t host_count;
    for (size_t i = 0; i < head->count; i++)
        if (head->headers[i].name_len == 0)
            return &folded;
    find(head, "host", &host_count);
    if (host_count > 1 || (host_count == 0 && head->minor_version > 0))
        return &host;
    return NULL;
}

/* What http.c would say to this request's body, were it arriving. */
static bool may_send(const struct head *head)
{
    size_t count;
    const struct guard_header *authorization = find(head, "authorization", &count);
    static __thread h2o_req_t req; /* of which only what follows is looked at */
    h2o_conn_t conn = {.ctx = &guard_own_thread()->context};
    h2o_header_t header = {.name = (h2o_iovec_t *)(uintptr_t)&H2O_TOKEN_AUTHORIZATION->buf};
    if (authorization == NULL)
        return false;
    header.value = h2o_iovec_init(authorization->value, authorization->value_len);
    req.conn = &conn;
    req.headers.entries = &header;
    req.headers.size = 1;
    req.input.method = h2o_iovec_init(head->method.data, head->method.bytes);
    req.input.path = h2o_iovec_init(head->path.data, head->path.bytes);
    return http_may_send(&req);
}

/* An invitation is worth its body only if that would be stored. */
static const struct guard_refusal *check_expectation(const struct head *head, size_t length)
{
    size_t count;
    const struct guard_header *expect = find(head, "expect", &count);
    const struct kv_settings *settings = guard_own_thread()->server->settings;
    bool is_put = kv_slice_equal(head->method, kv_slice_text("PUT"));
    if (expect == NULL || length == 0)
        return NULL;
    if (count > 1 || !list_is(value_of(expect), "100-continue"))
        return &expectation;
    if (!may_send(head))
        return &not_invited;
    if (length != SIZE_MAX && length > (is_put ? settings->value_bytes_max : settings->batch_bytes_max))
        return &too_large;
    return NULL;
}

static const struct guard_refusal *check(const struct head *head)
{
    size_t length;
    const struct guard_refusal *refusal = check_lines(head);
    if (refusal == NULL)
        refusal = check_body(head, &length);
    if (refusal == NULL && length != SIZE_MAX && length > guard_own_thread()->server->config.max_request_entity_size)
        refusal = &too_large;
    return refusal != NULL ? refusal : check_expectation(head, length);
}

static void trim(struct guard_header *header)
{
    struct kv_slice value = list_trim(value_of(header));
    header->value = (const char *)value.data;
    header->value_len = value.bytes;
}

/* Where the library departs from the RFCs: blanks behind a value are no part of it (RFC 9112, 5), and whoever speaks HTTP/1.0 is not
 * invited (RFC 9110, 10.1.1): it would take 100 for the answer. */
static size_t correct(struct guard_header *headers, size_t count, int minor_version)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        trim(&headers[i]);
        if (minor_version > 0 || !is_named(&headers[i], "expect"))
            headers[kept++] = headers[i];
    }
    return kept;
}

/* A body, an expectation or a change of protocol would keep the library from calling a handler now. */
static size_t without_body(struct guard_header *headers, size_t count)
{
    static const char *const names[] = {"content-length", "transfer-encoding", "expect", "upgrade"};
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        bool drop = headers[i].name_len == 0;
        for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++)
            drop = drop || is_named(&headers[i], names[n]);
        if (!drop)
            headers[kept++] = headers[i];
    }
    return kept;
}

/* ---- what is no head ---------------------------------------------------------------------------------------------- */

static bool is_http2(const char *buf, size_t len)
{
    static const char preface[] = "PRI * HTTP/2";
    return len >= sizeof(preface) - 1 && memcmp(buf, preface, sizeof(preface) - 1) == 0;
}

/* Line ends only: the library closes the connection without a word. */
static bool is_blank(const char *buf, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (buf[i] != '\r' && buf[i] != '\n')
            return false;
    return true;
}

static const struct guard_refusal *why_malformed(const char *buf, size_t len)
{
    static __thread struct guard_header headers[HEADERS_TOLD_MAX];
    const char *method, *path;
    size_t method_len, path_len, count = HEADERS_TOLD_MAX;
    int minor_version;
    int parsed = guard_head_library.parse_request(buf, len, &method, &method_len, &path, &path_len, &minor_version,
                                                  headers, &count, 0);
    return parsed == -1 ? &malformed : &too_many_headers;
}

/* Above the limit and still not complete: in its first line, or behind it? */
static const struct guard_refusal *why_endless(const char *buf, size_t len)
{
    return memchr(buf, '\n', len) == NULL ? &target_too_long : &head_too_large;
}

static const struct guard_refusal *check_unparsed(int result, const char *buf, size_t len)
{
    if (result == -1)
        return is_http2(buf, len) || is_blank(buf, len) ? NULL : why_malformed(buf, len);
    return len >= H2O_MAX_REQLEN ? why_endless(buf, len) : NULL;
}

/* ---- in the library's place --------------------------------------------------------------------------------------- */

int phr_parse_request(const char *buf, size_t len, const char **method, size_t *method_len, const char **path,
                      size_t *path_len, int *minor_version, struct guard_header *headers, size_t *num_headers,
                      size_t last_len)
{
    int result = guard_head_library.parse_request(buf, len, method, method_len, path, path_len, minor_version, headers,
                                                  num_headers, last_len);
    found = NULL;
    if (guard_own_thread() == NULL || !h2o_guard_is_on())
        return result;
    if (result < 0) {
        found = check_unparsed(result, buf, len);
        if (found == NULL)
            return result;
        *method = "-"; /* a handler wants a request: this one names nothing */
        *path = "/";
        *method_len = *path_len = 1;
        *minor_version = 1;
        *num_headers = 0;
        return (int)len;
    }
    *num_headers = correct(headers, *num_headers, *minor_version);
    found = check(&(struct head){kv_slice(*method, *method_len), kv_slice(*path, *path_len), *minor_version, headers,
                                 *num_headers});
    if (found != NULL)
        *num_headers = without_body(headers, *num_headers);
    return result;
}

size_t h2o_guard_h1_bytes(const char *buf, size_t len, size_t *head_bytes)
{
    struct guard_header headers[H2O_MAX_HEADERS];
    struct head head = {.headers = headers, .count = H2O_MAX_HEADERS};
    size_t method_len, path_len, body_len;
    const char *method, *path;
    int head_len = guard_head_library.parse_request(buf, len, &method, &method_len, &path, &path_len,
                                                    &head.minor_version, headers, &head.count, 0);
    if (head_len < 0 || check_body(&head, &body_len) != NULL || body_len > SIZE_MAX - (size_t)head_len)
        return SIZE_MAX;
    *head_bytes = (size_t)head_len;
    return (size_t)head_len + body_len;
}

/* The library is about to refuse a request that no handler has seen. */
void h2o_send_error_generic(h2o_req_t *req, int status, const char *reason, const char *body, int flags)
{
    if (guard_own_thread() == NULL || !h2o_guard_is_on() || req->pathconf != NULL) {
        guard_head_library.send_error(req, status, reason, body, flags);
        return;
    }
    req->http1_is_persistent = 0;
    found = req->version >= 0x200 ? &characters : status == 413 ? &too_large : status == 417 ? &expectation : &chunks;
    h2o_process_request(req);
}
