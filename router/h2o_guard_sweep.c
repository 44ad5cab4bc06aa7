/* router/h2o_guard_sweep.c -- see h2o_guard.h. This file: time. libh2o has no deadline for most of what a client can drag out,
 * and its single one for HTTP/1 covers a whole upload of any size: it is set to a day, and what follows takes
 * its place. A round walks all requests of the loop (libh2o's foreach_request), then judges their connections:
 *   headers begun, not complete       HEADER_WAIT_MS; and no more of them than HEADER_BYTES_MAX (HTTP/1: twice, then 431 comes first)
 *   HTTP/1 keep-alive, nothing begun  CLIENT_WAIT_MS (HTTP/2 has libh2o's idle_timeout)
 *   bodies                            BODY_RATE_MIN bytes a second, over each CLIENT_WAIT_MS and, in HTTP/2, for each body on the
 *                                     whole: one stream that moves does not keep the others alive for ever
 *   answers                           small ones CLIENT_WAIT_MS on the whole; large ones each piece (http.c, http_watch) */
#include "h2o_guard_internal.h"

#include <h2o/http2.h>
#include <h2o/http2_internal.h>
#include <sys/socket.h>
#include <utlist.h>

#include "accept.h"
#include "thread.h"

struct round {
    const struct kv_settings *settings;
    uint64_t now_ms; /* the loop's clock, which the requests' time stamps are of */
};

static uint64_t age_ms(const struct round *round, struct timeval since)
{
    uint64_t since_ms = (uint64_t)since.tv_sec * 1000 + (uint64_t)since.tv_usec / 1000;
    return round->now_ms > since_ms ? round->now_ms - since_ms : 0; /* a clock set back gives time, takes none */
}

static void note(struct guarded *guarded, enum guard_phase phase, uint64_t bytes)
{
    if (phase > guarded->phase_now)
        guarded->phase_now = phase;
    guarded->bytes_now += bytes;
}

static bool is_too_slow(const struct round *round, uint64_t bytes, uint64_t took_ms)
{
    return took_ms > round->settings->client_wait_ms && bytes < round->settings->body_rate_min * took_ms / 1000;
}

/* version is 0 until the headers are complete; then the body, until a handler has the request. */
static int look_at_h1(h2o_req_t *req, void *arg)
{
    struct guarded *guarded = h2o_guard_of(req);
    (void)arg;
    if (guarded == NULL || guarded->in_flight > 0)
        return 0;
    size_t bytes = guarded->socket->input->size;
    guarded->h1_now = req;
    if (req->version != 0)
        note(guarded, GUARD_BODY, bytes);
    else
        note(guarded, bytes == 0 ? GUARD_IDLE : GUARD_HEADERS, bytes);
    return 0;
}

static void look_at_answer(const struct round *round, struct guarded *guarded, const h2o_req_t *req)
{
    if (req->res.content_length <= H2O_GUARD_SMALL_BYTES &&
        age_ms(round, req->timestamps.response_start_at) > round->settings->client_wait_ms)
        h2o_guard_cut(guarded, METRICS_CUT_ANSWERS);
}

/* Not decoded yet: it grows to the library's 400 KiB before anybody is asked. */
static bool is_block_too_large(const struct round *round, const h2o_req_t *req)
{
    const h2o_http2_conn_t *conn = (const h2o_http2_conn_t *)(const void *)req->conn;
    return conn->_headers_unparsed != NULL && conn->_headers_unparsed->size > round->settings->header_bytes_max;
}

static int look_at_h2(h2o_req_t *req, void *arg)
{
    const struct round *round = arg;
    const h2o_http2_stream_t *stream = H2O_STRUCT_FROM_MEMBER(h2o_http2_stream_t, req, req);
    struct guarded *guarded = h2o_guard_of(req);
    if (guarded == NULL)
        return 0;
    switch (stream->state) {
    case H2O_HTTP2_STREAM_STATE_RECV_HEADERS:
        if (age_ms(round, req->timestamps.request_begin_at) > round->settings->header_wait_ms)
            h2o_guard_cut(guarded, METRICS_CUT_HEADERS);
        if (is_block_too_large(round, req))
            h2o_guard_cut(guarded, METRICS_CUT_HEADER_BYTES);
        break;
    case H2O_HTTP2_STREAM_STATE_RECV_BODY:
        note(guarded, GUARD_BODY, stream->_req_body->size);
        if (is_too_slow(round, stream->_req_body->size, age_ms(round, req->timestamps.request_body_begin_at)))
            h2o_guard_cut(guarded, METRICS_CUT_BODIES);
        break;
    case H2O_HTTP2_STREAM_STATE_SEND_BODY:
    case H2O_HTTP2_STREAM_STATE_SEND_BODY_IS_FINAL:
        look_at_answer(round, guarded, req);
        break;
    default:
        break;
    }
    return 0;
}

/* ---- words: in HTTP/1 nothing else can be on its way to a client that is still sending, and the library has no answer of its own. In
 * HTTP/2 the connection is cut without any: a stream that is not complete cannot be answered. */

struct lateness {
    const char *status, *code, *sentence;
};

static const struct lateness client_is_late = {"408 Request Timeout", "timeout", "The request did not arrive in time."};
/* The client would send, but is not read from (body_map.h). */
static const struct lateness disk_is_late = {"503 Service Unavailable\r\nRetry-After: 1", "unavailable",
                                             "The disk that uploads wait on stands still; nothing was done."};

static h2o_iovec_t words(h2o_req_t *req, const struct lateness *late)
{
    ssize_t at = h2o_find_header(&req->headers, H2O_TOKEN_ACCEPT, -1);
    h2o_iovec_t accept = at < 0 ? h2o_iovec_init(NULL, 0) : req->headers.entries[at].value;
    bool json = accept_prefers_json(kv_slice(accept.base, accept.len));
    char body[256], text[512];
    int body_bytes = json ? snprintf(body, sizeof(body), "{\"error\":{\"code\":\"%s\",\"message\":\"%s\"}}", late->code,
                                     late->sentence)
                          : snprintf(body, sizeof(body), "Error: %s\n", late->sentence);
    int bytes =
        snprintf(text, sizeof(text),
                 "HTTP/1.1 %s\r\nServer: kv-storage\r\nConnection: close\r\nContent-Type: %s\r\nContent-Length: %d"
                 "\r\n\r\n%s",
                 late->status, json ? "application/json" : "text/plain; charset=utf-8", body_bytes, body);
    return h2o_strdup(&req->pool, text, (size_t)bytes);
}

static void on_told(h2o_socket_t *socket, const char *err)
{
    const struct guarded *guarded = socket->on_close.data;
    (void)err; /* the client left: libh2o learns that in the same way */
    shutdown(h2o_socket_get_fd(socket), SHUT_RDWR);
    h2o_socket_read_start(socket, guarded->h1_read);
}

static void cut_late(struct guarded *guarded, enum metrics_counter reason)
{
    const struct lateness *late = guarded->pause.read != NULL ? &disk_is_late : &client_is_late;
    h2o_req_t *req = guarded->h1_now;
    if (req == NULL || guarded->cut || !h2o_guard_is_on() || h2o_socket_is_writing(guarded->socket)) {
        h2o_guard_cut(guarded, reason);
        return;
    }
    guarded->cut = true;
    metrics_add(guarded->thread->metrics, reason, 1);
    h2o_iovec_t answer = words(req, late);
    guarded->h1_read = guard_pause_over(guarded); /* a request that completes now must not be answered in between */
    h2o_socket_read_stop(guarded->socket);
    h2o_socket_write(guarded->socket, &answer, 1, on_told);
}

/* The headers' time counts from their first byte; all else from the last time that enough had come. */
static void judge(const struct round *round, struct guarded *guarded)
{
    uint64_t took_ms = round->now_ms > guarded->since_ms ? round->now_ms - guarded->since_ms : 0;
    uint64_t enough = round->settings->body_rate_min * round->settings->client_wait_ms / 1000;
    bool changed = guarded->phase_now != guarded->phase || guarded->bytes_now < guarded->bytes;
    if (guarded->phase_now == GUARD_BODY && guarded->bytes_now - guarded->bytes > enough)
        changed = true;
    if (changed) {
        guarded->phase = guarded->phase_now;
        guarded->bytes = guarded->bytes_now;
        guarded->since_ms = round->now_ms;
    } else if (guarded->phase == GUARD_HEADERS && took_ms > round->settings->header_wait_ms) {
        cut_late(guarded, METRICS_CUT_HEADERS);
    } else if (guarded->phase == GUARD_HEADERS && guarded->bytes_now > 2 * round->settings->header_bytes_max) {
        h2o_guard_cut(guarded, METRICS_CUT_HEADER_BYTES);
    } else if (guarded->phase == GUARD_BODY && took_ms > round->settings->client_wait_ms) {
        cut_late(guarded, METRICS_CUT_BODIES);
    } else if (guarded->phase == GUARD_IDLE && took_ms > round->settings->client_wait_ms) {
        h2o_guard_cut(guarded, METRICS_CUT_IDLE);
    }
    guarded->phase_now = GUARD_QUIET;
    guarded->bytes_now = 0;
    guarded->h1_now = NULL;
}

static void on_tick(h2o_timeout_entry_t *entry)
{
    struct router_thread *thread = H2O_STRUCT_FROM_MEMBER(struct router_thread, guard.tick, entry);
    struct round round = {.settings = thread->server->settings, .now_ms = h2o_now(thread->context.loop)};
    h2o_globalconf_t *config = &thread->server->config;
    struct guarded *guarded;
    config->http1.callbacks.foreach_request(&thread->context, look_at_h1, &round);
    config->http2.callbacks.foreach_request(&thread->context, look_at_h2, &round);
    DL_FOREACH(thread->guard.connections, guarded)
        judge(&round, guarded);
    h2o_guard_share_look(thread);
    h2o_timeout_link(thread->context.loop, &thread->context.hundred_ms_timeout, &thread->guard.tick);
}

void h2o_guard_sweep_start(struct router_thread *thread)
{
    thread->guard.tick.cb = on_tick;
    h2o_timeout_link(thread->context.loop, &thread->context.hundred_ms_timeout, &thread->guard.tick);
}
