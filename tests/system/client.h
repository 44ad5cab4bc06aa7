/* tests/system/client.h -- HTTP as clients speak it: one request at a time, over HTTP/1.1, h2c or Upgrade: h2c (libcurl).
 * A client keeps its connection between requests and belongs to one thread. Nothing here fails a test: a transfer that did not end
 * with an answer has status 0 and a `problem`. */
#ifndef KV_SYSTEM_CLIENT_H
#define KV_SYSTEM_CLIENT_H

#include <curl/curl.h>

#include "harness.h"

enum http { HTTP_1, HTTP_2, HTTP_2_UPGRADE };
#define HTTP_COUNT 3u

struct request {
    const char *method;
    const char *target; /* raw, from the slash on, percent-encoded by the caller */
    struct kv_slice body;
    bool has_body;           /* send a body, even an empty one */
    bool chunked;            /* without Content-Length (HTTP/1.1: Transfer-Encoding: chunked) */
    bool no_token;           /* leave Authorization out */
    const char *headers[12]; /* "Name: value", up to NULL; an own Authorization replaces ours */
    unsigned wait_ms;        /* 0: 60 s */
};

struct response {
    long status;           /* 0: no answer */
    long version;          /* CURL_HTTP_VERSION_1_1, CURL_HTTP_VERSION_2_0 */
    bool never_sent;       /* status 0, and no connection came about: surely nothing was done */
    struct kv_buf headers; /* of the final answer, "Name: value\r\n"… */
    struct kv_buf body;
    char problem[CURL_ERROR_SIZE];
};

struct client;
struct client *client_new(const struct server *server, enum http http);
void client_free(struct client **client);

/* The response belongs to the client and lives until its next request. */
const struct response *client_send(struct client *client, const struct request *request);

const struct response *client_put(struct client *client, const char *target, struct kv_slice body);
const struct response *client_get(struct client *client, const char *target);
const struct response *client_head(struct client *client, const char *target);
const struct response *client_delete(struct client *client, const char *target);

/* Value of a header (any case) copied into `out`, or "" when it is not there. Returns `out`. */
#define HEADER_BYTES 8192u
const char *response_header(const struct response *response, const char *name, char out[HEADER_BYTES]);
bool response_header_is(const struct response *response, const char *name, const char *value);
bool response_body_is(const struct response *response, struct kv_slice body);
/* "/" and the key, every byte but letters, digits and -._~ percent-encoded (slashes too, if asked); malloc'ed. */
char *target_of_key(struct kv_slice key, bool encode_slashes);

/* ---- beneath: also used by bulk.c ------------------------------------------------------------------------------- */

struct exchange {
    CURL *easy;
    struct curl_slist *headers;
    struct response response;
    struct kv_slice body;
    size_t body_at;
    bool connected; /* an HTTP/2 connection is open: see version_of in client.c */
    unsigned asked; /* times that curl began to send the request: once, see on_asking */
};
void exchange_init(struct exchange *exchange);
/* Prepares the easy handle; target and body must live until the transfer ends. */
void exchange_prepare(struct exchange *exchange, const struct server *server, enum http http,
                      const struct request *request);
/* Fills in status and version after the transfer. */
void exchange_finish(struct exchange *exchange, CURLcode code);
/* Makes libcurl look at what it has received already. To be called when a poll of EXCHANGE_NUDGE_MS saw nothing happen. */
#define EXCHANGE_NUDGE_MS 20
void exchange_nudge(struct exchange *exchange);
void exchange_free(struct exchange *exchange);

#endif
