/* router/auth.h -- is this request allowed at all? The bearer token of a request, looked up in the set of tokens (tokens.h).
 * Does:     parses `Authorization: Bearer <token>` (the scheme in any case). What the token may do is decided where the key
 *           is known: http.c, api_list.c, api_batch.c.
 * Tests:    unit/router/test_auth.c, http/test_http_errors.c, http/test_http_tokens.c. */
#ifndef KV_ROUTER_AUTH_H
#define KV_ROUTER_AUTH_H

#include "tokens.h"

enum auth_outcome { AUTH_GRANTED, AUTH_MISSING, AUTH_SCHEME, AUTH_UNKNOWN };

/* The token of an Authorization value. KV_INVALID: another scheme, no token, or bytes behind it. */
enum kv_err auth_bearer(struct kv_slice value, struct kv_slice *out);
/* `value` is the header's value, empty when there was none. The grant is valid as long as the set. */
enum auth_outcome auth_check(const struct tokens *tokens, struct kv_slice value, const struct grant **grant);

#endif
