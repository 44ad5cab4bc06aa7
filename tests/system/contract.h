/* tests/system/contract.h -- rows of the HTTP contract: a request, and what must come back, over every transport.
 * Does:     starts a store with TLS, sends each row in its order over HTTP/1.1, h2c with prior knowledge, h2c by upgrade, HTTP/2 over TLS
 *           and HTTP/1.1 over TLS (libcurl), prints what came back beside it, and fails the test when any row is not as it says.
 * In texts: "{}" is the transport's name (three letters), so that each has keys of its own; "$S" the SHA-256 of `content`; "#<n>" n
 *           times the letter x. */
#ifndef KV_SYSTEM_CONTRACT_H
#define KV_SYSTEM_CONTRACT_H

#include "client.h"

#define CONTRACT_VALUE_BYTES_MAX 1048576u /* MAX_VALUE_BYTES of the store */
#define CONTRACT_BATCH_BYTES_MAX 1048576u /* MAX_BATCH_BYTES */
#define CONTRACT_LINES_MAX 9

#define JSON "Accept: application/json"
#define ERROR_TEXT "content-type: text/plain; charset=utf-8", "~Error: "
#define ERROR_JSON(code) "content-type: application/json", "~{\"error\":{\"code\":\"" code "\",\"message\":\""

struct row {
    const char *says; /* the contract */
    const char *method, *target;
    const char *sent[CONTRACT_LINES_MAX]; /* headers; an Authorization of its own replaces ours */
    const char *body;                     /* NULL: none */
    size_t body_bytes;                    /* above 0: so many bytes instead, filled by pattern `body` */
    const char *content;                  /* what $S is the hash of; NULL: the body */
    size_t content_bytes;                 /* as body_bytes */
    bool no_token;
    bool chunked;     /* the body without Content-Length */
    bool expects_100; /* Expect: 100-continue, on HTTP/1.1 */
    long status;
    /* "name: value", "name:" for any value, "!name" for none of it; "~text" for a part of the body, "!~text" for none of it */
    const char *came[CONTRACT_LINES_MAX];
    const char *answer; /* the whole body; NULL: any */
};

void contract_check(const struct row *rows, size_t count);

#endif
