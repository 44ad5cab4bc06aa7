/* router/http.h -- one request and its answer: an exchange.
 * Does:     checks each request in this order: token, headers, path form, route, method, key, rights of the token (admit.h), what
 *           became of its body; then gives it to the route's handler, which looks at headers and body.
 * Owns:     the exchange, from on_req until h2o disposes of the request (answered, reset or disconnected); writes the access
 *           log then.
 * Promises: when the request dies, exchange->call is cancelled and on_gone(state) runs, once, and nobody touches the exchange
 *           afterwards. A client that does not take its answer for CLIENT_WAIT_MS is disconnected.
 * How a handler works: start a backend call, keep it in exchange->call, set it to NULL first thing in the callback, then start
 *           the next or answer (answer.h). Memory that ends with the request comes from exchange->req->pool.
 * Tests:    http/. */
#ifndef KV_ROUTER_HTTP_H
#define KV_ROUTER_HTTP_H

#include <h2o.h>

#include "backend.h"
#include "http_method.h"
#include "kv/slice.h"
#include "metrics.h"
#include "tokens.h"

#define HTTP_HEADERS_MAX 100u        /* 431 invalid_request */
#define HTTP_INLINE_BYTES_MAX 65536u /* contents above it are hashed and encoded by the worker thread */
#define HTTP_REQUEST_ID_BYTES_MAX 128u

struct router_thread;

struct exchange {
    h2o_req_t *req;
    struct router_thread *thread;
    enum http_method method;
    struct kv_slice path;  /* as the client wrote it, without the query */
    struct kv_slice query; /* as the client wrote it */
    struct kv_slice key;   /* decoded; for reserved names the name */
    struct kv_slice request_id;
    const struct guard_refusal *refusal; /* what its head or the server's state has against it; NULL: nothing */
    enum metrics_operation operation;    /* METRICS_OTHER until a handler has it */
    uint64_t begin_ns;
    struct backend_call *call;    /* cancelled when the request dies */
    void (*on_gone)(void *state); /* the handler's clean-up; NULL until it sets one */
    void *state;
    struct grant grant;          /* of its token; its prefix lives in the exchange */
    h2o_timeout_entry_t delayed; /* linked while a 401 waits (admit.h) */
    h2o_timeout_entry_t stalled; /* linked while the client has bytes to take */
};

/* Makes the handler of a path configuration; `h2o_handler_t.on_req` does the rest. */
void http_register(h2o_pathconf_t *pathconf);

/* Whether the body of a request may be worth its bytes: a method that has a body, a route that has the method, a good key, and a token
 * with the right to it. The rest of http.c then finds the same, unless the tokens changed meanwhile. */
bool http_may_send(h2o_req_t *req);

/* The value of a request header, several of the same name joined with ", "; empty when there is none. `count`: how many, may
 * be NULL. Header of a token known to h2o, or of any other name in lower case. */
struct kv_slice http_header(struct exchange *exchange, const h2o_token_t *token, size_t *count);
struct kv_slice http_header_named(struct exchange *exchange, const char *name, size_t *count);
struct kv_slice http_body(const struct exchange *exchange);
/* Whether its Content-Encoding says that the body is not what it stands for: none that is taken here. */
bool http_body_is_encoded(struct exchange *exchange);
/* Memory that ends with the request, not zeroed. */
void *http_alloc(struct exchange *exchange, size_t bytes);

/* The deadline of a client that has bytes to take: started with every send, ended when it took them. */
void http_watch(struct exchange *exchange);
void http_unwatch(struct exchange *exchange);

#endif
