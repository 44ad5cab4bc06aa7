/* router/answer.h -- everything that goes back to a client passes here.
 * Does:     errors (status, code, sentence; text or JSON by Accept), small bodies, response headers, X-Request-Id.
 * Promises: every answer carries X-Request-Id; each status of 400 and up a body that names the cause; 401 its
 *           WWW-Authenticate, 429 and 503 a Retry-After. After an answer_* call the exchange may be gone: return at once.
 * Tests:    http/test_http_errors.c. */
#ifndef KV_ROUTER_ANSWER_H
#define KV_ROUTER_ANSWER_H

#include "hpack.h"
#include "http.h"
#include "kv/err.h"

/* `sentence` ends with a full stop; printf-like, at most 511 bytes. */
void answer_error(struct exchange *exchange, int status, const char *code, const char *sentence, ...)
    __attribute__((format(printf, 4, 5)));
/* The status, code and sentence that the HTTP contract has for what the backend said. */
void answer_failure(struct exchange *exchange, enum kv_err err);
/* 200 and the like: `body` is copied; HEAD gets its length alone. */
void answer_body(struct exchange *exchange, int status, const char *content_type, struct kv_slice body);
/* The same without a copy: `body` lives until the exchange ends. Its headers, content type included, are there already. */
void answer_borrowed(struct exchange *exchange, int status, struct kv_slice body);
/* No body at all: 204, 304. */
void answer_empty(struct exchange *exchange, int status);
/* Begins an answer whose body comes from `generator` (answer_send), or, for HEAD, is left out: then the answer is complete with this
 * call. `bytes` is the Content-Length. */
void answer_begin(struct exchange *exchange, int status, uint64_t bytes, h2o_generator_t *generator);
/* The next bytes, borrowed until generator->proceed; `last` ends the answer. At least 1 byte unless last. */
void answer_send(struct exchange *exchange, struct kv_slice bytes, bool last);
/* The connection (HTTP/1) or the stream (HTTP/2) breaks off: the client sees that the body is not whole. */
void answer_break(struct exchange *exchange);

/* `value` is borrowed until the exchange ends (answer_copy). */
void answer_field(struct exchange *exchange, enum hpack_field field, struct kv_slice value);
/* Any other header; `name` is a literal in lower case; `value` is borrowed until the exchange ends (answer_copy). */
void answer_header(struct exchange *exchange, const char *name, struct kv_slice value);
/* Formats into the exchange's memory. */
struct kv_slice answer_format(struct exchange *exchange, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same for what every answer has: 16 hex digits per number. */
struct kv_slice answer_hex(struct exchange *exchange, const uint64_t *numbers, size_t count);
struct kv_slice answer_copy(struct exchange *exchange, struct kv_slice bytes);

#endif
