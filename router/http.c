/* router/http.c -- see http.h. */
#include "http.h"

#include "admit.h"
#include "answer.h"
#include "api.h"
#include "body.h"
#include "h2o_guard.h"
#include "key.h"
#include "kv/clock.h"
#include "kv/log.h"
#include "list.h"
#include "random.h"
#include "routes.h"
#include "thread.h"

/* ---- what a request says ------------------------------------------------------------------------------------------ */

void *http_alloc(struct exchange *exchange, size_t bytes)
{
    return h2o_mem_alloc_pool(&exchange->req->pool, bytes);
}

struct kv_slice http_body(const struct exchange *exchange)
{
    return kv_slice(exchange->req->entity.base, exchange->req->entity.len);
}

/* Appends `more` behind `list`, as RFC 9110, 5.3 joins fields of one name. */
static struct kv_slice join(struct exchange *exchange, struct kv_slice list, struct kv_slice more)
{
    uint8_t *joined = http_alloc(exchange, list.bytes + 2 + more.bytes);
    memcpy(joined, list.data, list.bytes);
    joined[list.bytes] = ',';
    joined[list.bytes + 1] = ' ';
    memcpy(joined + list.bytes + 2, more.data, more.bytes);
    return kv_slice(joined, list.bytes + 2 + more.bytes);
}

static bool has_name(const h2o_header_t *header, const h2o_token_t *token, struct kv_slice name)
{
    if (token != NULL)
        return header->name == &token->buf;
    return kv_slice_equal(kv_slice(header->name->base, header->name->len), name);
}

static struct kv_slice find_header(struct exchange *exchange, const h2o_token_t *token, struct kv_slice name,
                                   size_t *count)
{
    const h2o_headers_t *headers = &exchange->req->headers;
    struct kv_slice value = {NULL, 0};
    size_t found = 0;
    for (size_t i = 0; i < headers->size; i++) {
        const h2o_header_t *header = &headers->entries[i];
        if (!has_name(header, token, name))
            continue;
        struct kv_slice one = kv_slice(header->value.base, header->value.len);
        value = found == 0 ? one : join(exchange, value, one);
        found++;
    }
    if (count != NULL)
        *count = found;
    return value;
}

struct kv_slice http_header(struct exchange *exchange, const h2o_token_t *token, size_t *count)
{
    return find_header(exchange, token, kv_slice(NULL, 0), count);
}

struct kv_slice http_header_named(struct exchange *exchange, const char *name, size_t *count)
{
    return find_header(exchange, NULL, kv_slice_text(name), count);
}

bool http_body_is_encoded(struct exchange *exchange)
{
    struct kv_slice encoding = list_trim(http_header(exchange, H2O_TOKEN_CONTENT_ENCODING, NULL));
    return encoding.bytes != 0 && !list_is(encoding, "identity");
}

static enum http_method method_of(h2o_iovec_t name)
{
    static const struct {
        const char *name;
        enum http_method method;
    } methods[] = {
        {"GET", HTTP_GET}, {"HEAD", HTTP_HEAD}, {"PUT", HTTP_PUT}, {"DELETE", HTTP_DELETE}, {"POST", HTTP_POST},
    };
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        if (kv_slice_equal(kv_slice(name.base, name.len), kv_slice_text(methods[i].name)))
            return methods[i].method;
    return HTTP_OTHER;
}

/* ---- the life of an exchange -------------------------------------------------------------------------------------- */

static void disconnect_stalled(h2o_timeout_entry_t *entry)
{
    struct exchange *exchange = H2O_STRUCT_FROM_MEMBER(struct exchange, stalled, entry);
    exchange->thread->unread--; /* h2o has unlinked the entry */
    struct guarded *guarded = h2o_guard_of(exchange->req);
    if (guarded != NULL)
        h2o_guard_cut(guarded, METRICS_CUT_ANSWERS);
}

void http_unwatch(struct exchange *exchange)
{
    if (!h2o_timeout_is_linked(&exchange->stalled))
        return;
    h2o_timeout_unlink(&exchange->stalled);
    exchange->thread->unread--;
}

void http_watch(struct exchange *exchange)
{
    http_unwatch(exchange);
    h2o_timeout_link(exchange->thread->context.loop, &exchange->thread->client_wait, &exchange->stalled);
    exchange->thread->unread++;
}

/* The path with everything but visible ASCII percent-escaped, so that a log line cannot be forged. */
static void escape_path(struct kv_slice path, char *out, size_t out_bytes)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t used = 0;
    for (size_t i = 0; i < path.bytes && used + 4 < out_bytes; i++) {
        uint8_t byte = path.data[i];
        if (byte > ' ' && byte < 0x7f && byte != '"' && byte != '\\') {
            out[used++] = (char)byte;
            continue;
        }
        out[used++] = '%';
        out[used++] = digits[byte >> 4];
        out[used++] = digits[byte & 15];
    }
    out[used] = '\0';
}

static void write_access_log(const struct exchange *exchange)
{
    static const char *const names[] = {[HTTP_OTHER] = "OTHER", [HTTP_GET] = "GET",       [HTTP_HEAD] = "HEAD",
                                        [HTTP_PUT] = "PUT",     [HTTP_DELETE] = "DELETE", [HTTP_POST] = "POST"};
    char path[3 * KV_KEY_BYTES_MAX + 8]; /* a longer one is cut */
    const h2o_req_t *req = exchange->req;
    escape_path(exchange->path, path, sizeof(path));
    kv_log_request(KV_LOG_INFO, exchange->request_id, "access %s status=%d bytes=%zu ms=%.3f %s",
                   names[exchange->method], req->res.status, req->bytes_sent,
                   (double)(kv_clock_ns() - exchange->begin_ns) / 1e6, path);
}

/* Runs when h2o clears the request's pool: its chunks, and so everything from http_alloc, are still there. */
static void on_disposed(void *memory)
{
    struct exchange *exchange = memory;
    struct router_thread *thread = exchange->thread;
    http_unwatch(exchange);
    admit_forget(exchange);
    h2o_guard_end(exchange->req);
    if (exchange->call != NULL)
        backend_cancel_and_tell(exchange->call, h2o_guard_abandoned_over, h2o_guard_abandoned(exchange->req));
    if (exchange->on_gone != NULL)
        exchange->on_gone(exchange->state);
    if (thread->server->settings->access_log != 0)
        write_access_log(exchange);
    metrics_add(thread->metrics, METRICS_RESPONSE_BYTES, exchange->req->bytes_sent);
    metrics_request(thread->metrics, exchange->method, exchange->operation, exchange->req->res.status,
                    kv_clock_ns() - exchange->begin_ns);
    metrics_set(thread->metrics, METRICS_GAUGE_REQUESTS, --thread->exchanges);
    if (exchange->req->version >= 0x200)
        thread->exchanges_h2--;
}

/* 32 hex digits of a generator seeded by the kernel: unique enough to find a log line, not a secret. */
static struct kv_slice make_request_id(struct exchange *exchange)
{
    uint64_t *state = &exchange->thread->random;
    uint64_t high = random_next(state), low = random_next(state);
    return answer_hex(exchange, (uint64_t[]){high, low}, 2);
}

static struct kv_slice request_id(struct exchange *exchange)
{
    struct kv_slice given = http_header_named(exchange, "x-request-id", NULL);
    bool good = given.bytes >= 1 && given.bytes <= HTTP_REQUEST_ID_BYTES_MAX;
    for (size_t i = 0; good && i < given.bytes; i++)
        good = given.data[i] > ' ' && given.data[i] < 0x7f;
    return good ? given : make_request_id(exchange);
}

/* Requests that began before a drain are served: those who ask now shall ask the next router. */
static const struct guard_refusal *refusal_of(h2o_req_t *req)
{
    static const struct guard_refusal draining = {503, "unavailable", "The server is stopping; nothing was done.",
                                                  false};
    const struct router_thread *thread = H2O_STRUCT_FROM_MEMBER(struct router_thread, context, req->conn->ctx);
    const struct guard_refusal *refusal = h2o_guard_refusal(req);
    if (refusal == NULL && thread->drain.asked &&
        timercmp(&req->timestamps.request_begin_at, &thread->drain.asked_at, >))
        refusal = &draining;
    if (refusal != NULL)
        req->http1_is_persistent = 0;
    return refusal;
}

static struct exchange *exchange_new(h2o_req_t *req)
{
    struct exchange *exchange = h2o_mem_alloc_shared(&req->pool, sizeof(*exchange), on_disposed);
    *exchange = (struct exchange){
        .req = req,
        .thread = H2O_STRUCT_FROM_MEMBER(struct router_thread, context, req->conn->ctx),
        .method = method_of(req->method),
        .path = kv_slice(req->path.base, req->path.len),
        .begin_ns = kv_clock_ns(),
        .refusal = refusal_of(req),
        .operation = METRICS_OTHER,
        .stalled = {.cb = disconnect_stalled},
    };
    exchange->request_id = request_id(exchange);
    metrics_add(exchange->thread->metrics, METRICS_REQUEST_BODY_BYTES, req->entity.len);
    metrics_set(exchange->thread->metrics, METRICS_GAUGE_REQUESTS, ++exchange->thread->exchanges);
    exchange->thread->requests++;
    if (req->version >= 0x200)
        exchange->thread->exchanges_h2++;
    return exchange;
}

/* ---- the checks, in their order ----------------------------------------------------------------------------------- */

static void refuse_method(struct exchange *exchange, const struct route *route)
{
    answer_header(exchange, "allow", kv_slice_text(route->allow));
    if (routes_is_value(route))
        answer_error(exchange, 405, "method_not_allowed", "A key has the methods %s.", route->allow);
    else
        answer_error(
            exchange, 405, "method_not_allowed",
            "The names keys, batch, metrics and all that begin with '-/' are the server's own: this one has the "
            "methods %s.",
            route->allow);
}

static void refuse_key(struct exchange *exchange, enum kv_err err, const char *why)
{
    if (err == KV_TOO_LARGE)
        answer_error(exchange, 414, "key_too_long", "The key is longer than %u bytes.", KV_KEY_BYTES_MAX);
    else
        answer_error(exchange, 400, "invalid_key", "The key %s.", why);
}

static bool has_too_many_headers(const struct exchange *exchange)
{
    return exchange->req->headers.size > HTTP_HEADERS_MAX ||
           h2o_guard_headers_too_large(exchange->req, exchange->thread->server->settings->header_bytes_max);
}

static void refuse_headers(struct exchange *exchange)
{
    metrics_add(exchange->thread->metrics, METRICS_HEADERS_REFUSED, 1);
    if (exchange->req->headers.size > HTTP_HEADERS_MAX)
        answer_error(exchange, 431, "invalid_request", "The request has more than %u headers.", HTTP_HEADERS_MAX);
    else if (exchange->req->path.len > exchange->thread->server->settings->header_bytes_max)
        answer_error(exchange, 414, "key_too_long", "The request target has more than HEADER_BYTES_MAX (%lu) bytes.",
                     exchange->thread->server->settings->header_bytes_max);
    else
        answer_error(exchange, 431, "invalid_request", "The headers have more than HEADER_BYTES_MAX (%lu) bytes.",
                     exchange->thread->server->settings->header_bytes_max);
}

/* The body was read and forgotten (body.h): nothing of it can be used. */
static void refuse_body(struct exchange *exchange, enum kv_err state)
{
    const struct kv_settings *settings = exchange->thread->server->settings;
    if (state == KV_TOO_LARGE)
        answer_error(exchange, 413, "too_large", "The body has %zu bytes, %s allows %lu.", http_body(exchange).bytes,
                     exchange->method == HTTP_POST ? "MAX_BATCH_BYTES" : "MAX_VALUE_BYTES",
                     exchange->method == HTTP_POST ? settings->batch_bytes_max : settings->value_bytes_max);
    else if (state == KV_CANCELLED)
        answer_error(exchange, 503, "unavailable",
                     "The token did not allow this when the body began, so that it was not kept: send it again.");
    else if (state == KV_NO_SPACE)
        answer_error(exchange, 507, "insufficient_storage",
                     "The disk for uploads under way ($TMPDIR or /tmp) is full; nothing was stored.");
    else
        answer_error(exchange, 429, "overloaded",
                     "Uploads under way have used up UPLOAD_BYTES_MAX (%lu); nothing was stored: try again.",
                     settings->upload_bytes_max);
}

/* KV_CANCELLED: http_may_send refused, and the body was forgotten or not invited. No handler looks at the body of GET, HEAD and
 * DELETE. */
static enum kv_err body_err(struct exchange *exchange)
{
    enum kv_err state = http_body(exchange).bytes > HTTP_INLINE_BYTES_MAX ? body_settle(exchange->req) : KV_OK;
    if (exchange->refusal != NULL && exchange->refusal->status == 0)
        state = KV_CANCELLED;
    if (state != KV_OK)
        exchange->req->http1_is_persistent = 0; /* bytes behind such a body may have been forgotten with it */
    return state == KV_CANCELLED && (exchange->method & (HTTP_PUT | HTTP_POST)) == 0 ? KV_OK : state;
}

/* A stopping server is healthy as long as it runs. */
static bool is_refused(const struct exchange *exchange, const struct route *route)
{
    const struct guard_refusal *refusal = exchange->refusal;
    return refusal != NULL && refusal->status != 0 && !(refusal->status == 503 && route->handle == api_healthy);
}

static void refuse_as_found(struct exchange *exchange)
{
    const struct guard_refusal *refusal = exchange->refusal;
    answer_error(exchange, refusal->status, refusal->code, "%s", refusal->sentence);
}

static void check_and_handle(struct exchange *exchange)
{
    struct key_target target = {0};
    const char *why = NULL;
    struct kv_slice key = {NULL, 0};
    enum kv_err key_err = KV_NOT_FOUND;
    enum kv_err target_err = key_target(exchange->path, &target);
    if (target_err == KV_OK) {
        exchange->path = target.path;
        exchange->query = target.query;
        size_t space = target.path.bytes < KV_KEY_BYTES_MAX ? target.path.bytes : KV_KEY_BYTES_MAX;
        key_err = key_decode(target.path, http_alloc(exchange, space), space, &key, &why);
    }
    const struct route *route = routes_find(key, exchange->method);
    enum kv_err body_state_err = body_err(exchange);
    if (!admit_authenticate(exchange, route))
        return; /* answered, or soon */
    if (has_too_many_headers(exchange))
        refuse_headers(exchange);
    else if (is_refused(exchange, route))
        refuse_as_found(exchange);
    else if (target_err != KV_OK)
        answer_error(exchange, 400, "invalid_request", "The request target is neither a path nor an absolute URL.");
    else if (key_err == KV_NOT_FOUND)
        answer_error(exchange, 404, "not_found", "There is nothing at this path; keys are at /{key}.");
    else if ((route->methods & exchange->method) == 0)
        refuse_method(exchange, route);
    else if (key_err != KV_OK)
        refuse_key(exchange, key_err, why);
    else if (route->handle == NULL)
        answer_error(exchange, 404, "not_found", "There is nothing at this path of the server's own.");
    else if (!admit_right(exchange, route, key))
        return;
    else if (body_state_err != KV_OK)
        refuse_body(exchange, body_state_err);
    else {
        exchange->key = key;
        exchange->operation = route->operation;
        route->handle(exchange);
    }
}

static int on_req(h2o_handler_t *self, h2o_req_t *req)
{
    (void)self;
    bool welcome = h2o_guard_begin(req);
    struct exchange *exchange = exchange_new(req);
    if (welcome && exchange->refusal != NULL && exchange->refusal->unread)
        refuse_as_found(exchange);
    else if (welcome)
        check_and_handle(exchange);
    else
        answer_error(exchange, 503, "unavailable", "This connection has used up a budget and is being closed.");
    return 0;
}

bool http_may_send(h2o_req_t *req)
{
    uint8_t space[KV_KEY_BYTES_MAX];
    enum http_method method = method_of(req->input.method);
    struct key_target target;
    struct kv_slice key;
    const char *why;
    if ((method & (HTTP_PUT | HTTP_POST)) == 0 ||
        key_target(kv_slice(req->input.path.base, req->input.path.len), &target) != KV_OK ||
        key_decode(target.path, space, sizeof(space), &key, &why) != KV_OK)
        return false;
    const struct route *route = routes_find(key, method);
    return (route->methods & method) != 0 && admit_may_send(req, route, key);
}

void http_register(h2o_pathconf_t *pathconf)
{
    h2o_handler_t *handler = h2o_create_handler(pathconf, sizeof(*handler));
    handler->on_req = on_req;
}
