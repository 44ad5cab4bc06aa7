/* router/condition.h -- conditional requests: If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since (RFC 9110, 13).
 * Does:     reads the four headers once; decides for GET and HEAD against a row; for PUT and DELETE says what the backend must
 *           check in the same step as the write, or that the row must be looked at first.
 * Promises: for a write nothing is decided on a row that may have changed: what was decided is pinned by backend_op.match.
 * Tests:    unit/router/test_condition.c, http/test_http_values.c. */
#ifndef KV_ROUTER_CONDITION_H
#define KV_ROUTER_CONDITION_H

#include "backend.h"
#include "etag.h"
#include "http.h"

struct condition {
    struct etag_list if_match;
    struct etag_list if_none_match;
    bool has_modified_since;
    bool has_unmodified_since;
    uint64_t modified_since_s;
    uint64_t unmodified_since_s;
};

/* KV_INVALID: a tag list is malformed, `why` is a sentence (static). Dates that are not dates are passed over, as the RFC
 * wants it. Slices point into the request. */
enum kv_err condition_read(struct exchange *exchange, struct condition *out, const char **why);

/* For GET and HEAD of a key that exists: KV_OK, KV_PRECONDITION (412), KV_END (304). */
enum kv_err condition_check_read(const struct condition *condition, const struct kv_row *row);

/* For PUT and DELETE. KV_OK: the backend checks it all, by what was set in `op`. KV_STALE: read the row, then
 * condition_check_write. KV_PRECONDITION: no row can satisfy it. */
enum kv_err condition_plan_write(const struct condition *condition, struct backend_op *op);
/* `row` is NULL when the key does not exist. KV_OK: holds for this row, and `op` is pinned to it. KV_PRECONDITION. */
enum kv_err condition_check_write(const struct condition *condition, const struct kv_row *row, struct backend_op *op);

/* The three forms of an HTTP date (RFC 9110, 5.6.7) as Unix seconds. KV_INVALID. */
enum kv_err condition_date(struct kv_slice text, uint64_t *out_s);

#endif
