/* router/auth.h -- is this request allowed at all? A bearer token, compared in constant time.
 * Does:     parses `Authorization: Bearer <token>` (the scheme in any case) and compares the SHA-256 of both tokens, so
 *           that neither the length nor a shared beginning shows in the time it takes. The token itself is not kept.
 * Tests:    unit/router/test_auth.c, http/test_http_errors.c. */
#ifndef KV_ROUTER_AUTH_H
#define KV_ROUTER_AUTH_H

#include <stdbool.h>

#include "kv/err.h"
#include "kv/model.h"

struct auth {
    struct kv_hash token_hash;
};

struct auth auth_of(struct kv_slice token);
/* The token of an Authorization value. KV_INVALID: another scheme, no token, or bytes behind it. */
enum kv_err auth_bearer(struct kv_slice value, struct kv_slice *out);
/* `value` is the header's value, empty when there was none. */
bool auth_allows(const struct auth *auth, struct kv_slice value);

#endif
