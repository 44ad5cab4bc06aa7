/* router/answer.c -- see answer.h. */
#include "answer.h"

#include <jansson.h>
#include <stdarg.h>

#include "accept.h"
#include "digits.h"
#include "kv/buf.h"
#include "kv/log.h"
#include "thread.h"

enum { SENTENCE_BYTES = 512 };

/* ---- headers ------------------------------------------------------------------------------------------------------ */

struct kv_slice answer_copy(struct exchange *exchange, struct kv_slice bytes)
{
    uint8_t *copy = http_alloc(exchange, bytes.bytes + 1);
    if (bytes.bytes != 0)
        memcpy(copy, bytes.data, bytes.bytes);
    return kv_slice(copy, bytes.bytes);
}

struct kv_slice answer_format(struct exchange *exchange, const char *format, ...)
{
    char text[SENTENCE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int bytes = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    kv_assert(bytes >= 0 && (size_t)bytes < sizeof(text));
    return answer_copy(exchange, kv_slice(text, (size_t)bytes));
}

struct kv_slice answer_hex(struct exchange *exchange, const uint64_t *numbers, size_t count)
{
    char *text = http_alloc(exchange, 16 * count);
    for (size_t i = 0; i < count; i++) {
        digits_write_hex((uint32_t)(numbers[i] >> 32), text + 16 * i);
        digits_write_hex((uint32_t)numbers[i], text + 16 * i + 8);
    }
    return kv_slice(text, 16 * count);
}

void answer_field(struct exchange *exchange, enum hpack_field field, struct kv_slice value)
{
    hpack_add(exchange->req, field, (const char *)value.data, value.bytes);
}

void answer_header(struct exchange *exchange, const char *name, struct kv_slice value)
{
    h2o_req_t *req = exchange->req;
    h2o_add_header_by_str(&req->pool, &req->res.headers, name, strlen(name), 1, NULL, (const char *)value.data,
                          value.bytes);
}

/* ---- bodies ------------------------------------------------------------------------------------------------------- */

static void set_status(struct exchange *exchange, int status)
{
    exchange->req->res.status = status;
    exchange->req->res.reason = "";
    switch (status) {
#define REASON(number, text)                                                                                           \
    case number:                                                                                                       \
        exchange->req->res.reason = text;                                                                              \
        break
        REASON(200, "OK");
        REASON(201, "Created");
        REASON(204, "No Content");
        REASON(206, "Partial Content");
        REASON(304, "Not Modified");
        REASON(400, "Bad Request");
        REASON(401, "Unauthorized");
        REASON(403, "Forbidden");
        REASON(404, "Not Found");
        REASON(405, "Method Not Allowed");
        REASON(412, "Precondition Failed");
        REASON(413, "Content Too Large");
        REASON(414, "URI Too Long");
        REASON(415, "Unsupported Media Type");
        REASON(416, "Range Not Satisfiable");
        REASON(417, "Expectation Failed");
        REASON(429, "Too Many Requests");
        REASON(431, "Request Header Fields Too Large");
        REASON(500, "Internal Server Error");
        REASON(503, "Service Unavailable");
        REASON(504, "Gateway Timeout");
        REASON(507, "Insufficient Storage");
#undef REASON
    default:
        break;
    }
    if (exchange->thread->context.shutdown_requested)
        exchange->req->http1_is_persistent = 0; /* h2o decided that before the body came: say goodbye in this answer */
    answer_field(exchange, HPACK_X_REQUEST_ID, exchange->request_id);
}

/* Nothing is left to produce: for answers that are complete with one send. */
static h2o_generator_t no_generator = {NULL, NULL};

static void finish(struct exchange *exchange, h2o_iovec_t *body, size_t count)
{
    http_watch(exchange);
    h2o_start_response(exchange->req, &no_generator);
    h2o_send(exchange->req, body, count, H2O_SEND_STATE_FINAL);
}

void answer_empty(struct exchange *exchange, int status)
{
    set_status(exchange, status);
    finish(exchange, NULL, 0);
}

void answer_body(struct exchange *exchange, int status, const char *content_type, struct kv_slice body)
{
    struct kv_slice copy = answer_copy(exchange, body);
    h2o_iovec_t iovec = h2o_iovec_init(copy.data, copy.bytes);
    set_status(exchange, status);
    exchange->req->res.content_length = body.bytes;
    answer_field(exchange, HPACK_CONTENT_TYPE, kv_slice_text(content_type));
    finish(exchange, &iovec, exchange->method == HTTP_HEAD || body.bytes == 0 ? 0 : 1);
}

void answer_borrowed(struct exchange *exchange, int status, struct kv_slice body)
{
    h2o_iovec_t iovec = h2o_iovec_init(body.data, body.bytes);
    set_status(exchange, status);
    exchange->req->res.content_length = body.bytes;
    finish(exchange, &iovec, body.bytes == 0 ? 0 : 1);
}

void answer_begin(struct exchange *exchange, int status, uint64_t bytes, h2o_generator_t *generator)
{
    set_status(exchange, status);
    exchange->req->res.content_length = bytes;
    if (exchange->method == HTTP_HEAD)
        finish(exchange, NULL, 0);
    else
        h2o_start_response(exchange->req, generator);
}

void answer_send(struct exchange *exchange, struct kv_slice bytes, bool last)
{
    h2o_iovec_t iovec = h2o_iovec_init(bytes.data, bytes.bytes);
    kv_assert(bytes.bytes != 0 || last); /* h2o takes an empty piece for the end */
    http_watch(exchange);
    h2o_send(exchange->req, &iovec, bytes.bytes == 0 ? 0 : 1, last ? H2O_SEND_STATE_FINAL : H2O_SEND_STATE_IN_PROGRESS);
}

void answer_break(struct exchange *exchange)
{
    exchange->req->http1_is_persistent = 0;
    h2o_send(exchange->req, NULL, 0, H2O_SEND_STATE_ERROR);
}

/* ---- errors ------------------------------------------------------------------------------------------------------- */

static struct kv_slice error_as_json(struct exchange *exchange, const char *code, const char *sentence)
{
    json_t *error = json_pack("{s:{s:s,s:s}}", "error", "code", code, "message", sentence);
    char *text = error == NULL ? NULL : json_dumps(error, JSON_COMPACT);
    kv_assert(text != NULL); /* our own sentences are UTF-8 */
    struct kv_slice body = answer_copy(exchange, kv_slice_text(text));
    free(text);
    json_decref(error);
    return body;
}

void answer_error(struct exchange *exchange, int status, const char *code, const char *sentence, ...)
{
    char text[SENTENCE_BYTES];
    va_list arguments;
    va_start(arguments, sentence);
    int bytes = vsnprintf(text, sizeof(text), sentence, arguments);
    va_end(arguments);
    kv_assert(bytes >= 0);
    if (status == 401)
        answer_header(exchange, "www-authenticate", kv_slice_text("Bearer realm=\"kv-storage\""));
    if (status == 429 || status == 503)
        answer_header(exchange, "retry-after", kv_slice_text("1"));
    if (accept_prefers_json(http_header(exchange, H2O_TOKEN_ACCEPT, NULL)))
        answer_body(exchange, status, "application/json", error_as_json(exchange, code, text));
    else
        answer_body(exchange, status, "text/plain; charset=utf-8", answer_format(exchange, "Error: %.500s\n", text));
}

static const struct failure {
    enum kv_err err;
    int status;
    const char *code;
    const char *sentence;
} failures[] = {
    {KV_NOT_FOUND, 404, "not_found", "The key does not exist."},
    {KV_TOO_LARGE, 413, "too_large", "The request is larger than this server takes."},
    {KV_PRECONDITION, 412, "precondition_failed", "A precondition of the request does not hold; nothing was done."},
    {KV_OVERLOADED, 429, "overloaded", "The server has too much to do at the moment; nothing was done, try again."},
    {KV_NO_SPACE, 507, "insufficient_storage", "The disk or the map of a shard is full; nothing was stored."},
    {KV_UNAVAILABLE, 503, "unavailable", "A shard does not answer at the moment; nothing was done, try again."},
    {KV_UNCERTAIN, 504, "uncertain", "A shard did not answer in time: whether the change was made is not known."},
    {KV_CORRUPT, 500, "corrupt", "The stored bytes of this value are damaged; they are not served."},
};

void answer_failure(struct exchange *exchange, enum kv_err err)
{
    for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
        const struct failure *failure = &failures[i];
        if (failure->err == err) {
            answer_error(exchange, failure->status, failure->code, "%s", failure->sentence);
            return;
        }
    }
    kv_log_request(KV_LOG_WARN, exchange->request_id, "the request failed: %s", kv_err_text(err));
    answer_error(exchange, 500, "internal", "The server failed at this request: %s.", kv_err_text(err));
}
