/* router/auth.c -- see auth.h. */
#include "auth.h"

#include <strings.h>

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

enum auth_outcome auth_check(const struct tokens *tokens, struct kv_slice value, const struct grant **grant)
{
    struct kv_slice token;
    if (value.bytes == 0)
        return AUTH_MISSING;
    if (auth_bearer(value, &token) != KV_OK)
        return AUTH_SCHEME;
    *grant = tokens_find(tokens, token);
    return *grant == NULL ? AUTH_UNKNOWN : AUTH_GRANTED;
}
