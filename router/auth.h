/* router/auth.h -- is this request allowed at all? The bearer token of a request, looked up in the set of tokens (tokens.h).
 * Does:     parses `Authorization: Bearer <token>` (the scheme in any case). What the token may do is decided where the key
 *           is known: admit.c, api_list.c, api_batch.c.
 *           A connection that shows the same header again is not hashed again: SHA-256 and a look at all tokens would be a tenth
 *           of a small GET. What it showed is kept for HTTP/2 only, whose header table has it in memory anyway, and wiped at its end.
 * Tests:    unit/router/test_auth.c, http/test_http_errors.c, http/test_http_tokens.c. */
#ifndef KV_ROUTER_AUTH_H
#define KV_ROUTER_AUTH_H

#include "tokens.h"

enum auth_outcome { AUTH_GRANTED, AUTH_MISSING, AUTH_SCHEME, AUTH_UNKNOWN };

/* The token of an Authorization value. KV_INVALID: another scheme, no token, or bytes behind it. */
enum kv_err auth_bearer(struct kv_slice value, struct kv_slice *out);
/* `value` is the header's value, empty when there was none. The grant is valid as long as the set. */
enum auth_outcome auth_check(const struct tokens *tokens, struct kv_slice value, const struct grant **grant);

/* The last header of a connection that was granted something. Zero-initialised: none. */
struct auth_seen {
    struct kv_slice value;     /* owned */
    struct tokens *tokens;     /* a reference of its own: another set has another address */
    const struct grant *grant; /* of that set */
};

/* The same, with the memory of a connection. */
enum auth_outcome auth_check_again(struct auth_seen *seen, struct tokens *tokens, struct kv_slice value,
                                   const struct grant **grant);
void auth_forget(struct auth_seen *seen);

#endif
