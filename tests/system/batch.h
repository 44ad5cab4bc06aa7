/* tests/system/batch.h -- POST /batch as a client writes and reads it: JSON text out, results in (jansson).
 * Does:     a batch is built operation by operation, sent, and its results are read by their place.
 * Owns:     the text until batch_free; results until batch_results_free.
 * Fails:    results of another form or number are NULL, not a crash: the caller decides. */
#ifndef KV_SYSTEM_BATCH_H
#define KV_SYSTEM_BATCH_H

#include "client.h"

/* Conditions on a put or delete. */
struct match {
    enum { MATCH_NONE, MATCH_ANY, MATCH_HASH, MATCH_ABSENT } kind;
    char hash[65];
};
struct match match_content(struct kv_slice content); /* if_match its SHA-256 */
/* As a request header ("" for MATCH_NONE). */
const char *match_header(const struct match *match, char out[96]);

/* Zero-initialised is empty. */
struct batch {
    struct kv_buf text;
    size_t count;
};
/* Keys hold letters, digits and slashes only; values any UTF-8, or any bytes with `base64`. */
void batch_put(struct batch *batch, const char *key, struct kv_slice value, bool base64, struct match match);
void batch_get(struct batch *batch, const char *key);
void batch_delete(struct batch *batch, const char *key, struct match match);
void batch_free(struct batch *batch);
const struct response *batch_send(struct client *client, struct batch *batch);
/* Closes the array: the body, ready to be sent by other means. */
struct kv_slice batch_body(struct batch *batch);

struct batch_result {
    enum { RESULT_PUT, RESULT_GET, RESULT_DELETE } kind;
    bool found; /* GET; DELETE: deleted; PUT: not created */
    struct kv_slice key;
    struct kv_buf value; /* GET when found, decoded */
    char hash[65];       /* PUT */
};
struct batch_results {
    struct batch_result *results;
    size_t count;
    void *json;
};
/* The results of a 200 answer, `count` of them; false when the body is anything else. */
bool batch_results_read(const struct response *response, size_t count, struct batch_results *out);
/* The operation that a 412 names. */
bool batch_refused_at(const struct response *response, size_t *out);
void batch_results_free(struct batch_results *results);

#endif
