/* router/auth.c -- see auth.h. */
#include "auth.h"

#include <openssl/crypto.h>
#include <strings.h>

#include "digest.h"

struct auth auth_of(struct kv_slice token)
{
    return (struct auth){.token_hash = digest_of(token)};
}

enum kv_err auth_bearer(struct kv_slice value, struct kv_slice *out)
{
    static const char scheme[] = "Bearer";
    const size_t scheme_bytes = sizeof(scheme) - 1;
    if (value.bytes <= scheme_bytes || strncasecmp((const char *)value.data, scheme, scheme_bytes) != 0)
        return KV_INVALID;
    size_t first = scheme_bytes;
    while (first < value.bytes && value.data[first] == ' ')
        first++;
    size_t end = value.bytes;
    while (end > first && (value.data[end - 1] == ' ' || value.data[end - 1] == '\t'))
        end--;
    if (first == scheme_bytes || first == end)
        return KV_INVALID;
    *out = kv_slice(value.data + first, end - first);
    return KV_OK;
}

bool auth_allows(const struct auth *auth, struct kv_slice value)
{
    struct kv_slice token;
    if (auth_bearer(value, &token) != KV_OK)
        return false;
    struct kv_hash hash = digest_of(token);
    return CRYPTO_memcmp(hash.bytes, auth->token_hash.bytes, KV_HASH_BYTES) == 0;
}
