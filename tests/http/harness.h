/* tests/http/harness.h -- a router in this process, and libcurl to talk to it.
 * A test starts it, asks, and ends with http_stop, which drains it and checks that nothing was left behind. */
#ifndef KV_TESTS_HARNESS_H
#define KV_TESTS_HARNESS_H

#include <criterion/criterion.h>
#include <curl/curl.h>

#include "fake_backend.h"
#include "kv/settings.h"
#include "server.h"

#define TOKEN "test-token"

extern struct kv_settings http_settings; /* change after http_defaults, before http_start */
extern struct server *http_server;
extern unsigned short http_port;     /* plaintext */
extern unsigned short http_tls_port; /* 0 without TLS */

void http_defaults(void);
void http_start(void);
/* With TLS too: the settings name cert and key. */
void http_start_tls(void);
/* What SIGHUP does: the files of the settings again. When it returns, each loop has them. */
enum kv_err http_reload(char *why, size_t why_bytes);
/* Drains, and expects no holds, no unreleased transaction, no connection. */
void http_stop(void);

enum version { H1, H2, H1_TLS, H2_TLS };
static const enum version http_versions[] = {H1, H2}; /* in plaintext */

struct answer {
    long status; /* 0: no answer; `curl_error` says why */
    CURLcode curl_error;
    struct kv_buf headers; /* as they came, zero-terminated */
    struct kv_buf body;    /* zero-terminated behind its end */
};

struct request {
    const char *method; /* NULL: GET */
    const char *path;   /* with its slash */
    const char *headers[8];
    struct kv_slice body;
    bool has_body; /* a PUT of nothing has one too */
    bool no_token;
};

struct answer http_ask(enum version version, const struct request *request);
/* Shorthands with the token. */
struct answer http_get(enum version version, const char *path, const char *header);
struct answer http_put(enum version version, const char *path, struct kv_slice body, const char *header);
struct answer http_method(enum version version, const char *method, const char *path, const char *header);
/* The value of a header of the answer; "" when it is not there. Overwritten by the next call. */
const char *http_value(const struct answer *answer, const char *name);
void answer_free(struct answer *answer);

/* A connected TCP socket, for what curl would never send. */
int http_connect(void);
void http_send(int fd, const char *text);
/* Everything until the server closes, or `wait_ms` without a byte: for what shall not come, or comes with the end of the connection.
 * Zero-terminated. */
struct kv_buf http_receive(int fd, int wait_ms);
/* The same until `text` has come, however slow the machine: for answers on connections that stay open. */
struct kv_buf http_receive_until(int fd, const char *text);
/* Whether these bytes come, before the end of the connection. */
bool http_receives(int fd, struct kv_slice bytes);

/* Bytes that compress (text) or do not. */
struct kv_buf http_content(size_t bytes, bool random);
#define HTTP_WAIT_MS 60000 /* nothing takes as long, on any machine: what has not come by then does not come */
/* Waits until the condition holds, HTTP_WAIT_MS at most. */
#define http_wait_until(condition)                                                                                     \
    do {                                                                                                               \
        for (int waited = 0; !(condition) && waited < HTTP_WAIT_MS; waited += 5)                                       \
            http_nap(5);                                                                                               \
        cr_assert((condition), "waited for " #condition);                                                              \
    } while (0)
void http_nap(int ms);

#endif
