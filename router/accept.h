/* router/accept.h -- what the client would rather have: quality values of Accept and Accept-Encoding (RFC 9110, 12.5).
 * Pure. A malformed element is passed over. Tests: unit/router/test_accept.c. */
#ifndef KV_ROUTER_ACCEPT_H
#define KV_ROUTER_ACCEPT_H

#include "kv/slice.h"

/* Errors as JSON: application/json has a higher quality than text/plain, or the same and was named: HTTP libraries that ask for
 * `application/json, text/plain` and then for anything read JSON. No header, or one that takes anything: text. */
bool accept_prefers_json(struct kv_slice accept);
/* zstd is named with a quality above 0 that is not below a named identity's. `*` alone does not ask for zstd. */
bool accept_prefers_zstd(struct kv_slice accept_encoding);

#endif
