/* router/auth.c -- see auth.h. */
#include "auth.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <strings.h>

#include "kv/buf.h"

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

void auth_forget(struct auth_seen *seen)
{
    void *value = (void *)(uintptr_t)seen->value.data;
    if (value != NULL)
        OPENSSL_cleanse(value, seen->value.bytes);
    free(value);
    tokens_release(&seen->tokens);
    *seen = (struct auth_seen){0};
}

/* In the same time wherever they differ: who shares a connection through a proxy may not know the token. */
static bool is_seen(const struct auth_seen *seen, const struct tokens *tokens, struct kv_slice value)
{
    return seen->tokens == tokens && seen->value.bytes == value.bytes &&
           CRYPTO_memcmp(seen->value.data, value.data, value.bytes) == 0;
}

enum auth_outcome auth_check_again(struct auth_seen *seen, struct tokens *tokens, struct kv_slice value,
                                   const struct grant **grant)
{
    if (value.bytes > 0 && is_seen(seen, tokens, value)) {
        *grant = seen->grant;
        return AUTH_GRANTED;
    }
    enum auth_outcome outcome = auth_check(tokens, value, grant);
    if (outcome == AUTH_GRANTED) {
        auth_forget(seen);
        *seen = (struct auth_seen){kv_slice(kv_copy(value), value.bytes), tokens_hold(tokens), *grant};
    }
    return outcome;
}
