/* router/key.h -- from the request target as the client wrote it to the bytes of a key.
 * Does:     cuts target into path and query (origin form, or absolute form as proxies send it), decodes `%XX` once,
 *           checks that a key is 1 to KV_KEY_BYTES_MAX bytes of strict UTF-8 without U+0000.
 * Promises: never looks at a normalised path: `a//b`, `a/../b` and `a%2Fb` are what the client meant.
 * Fails:    with a kv_err that says which status is due, and words for the client.
 * Tests:    unit/router/test_key.c. */
#ifndef KV_ROUTER_KEY_H
#define KV_ROUTER_KEY_H

#include "kv/err.h"
#include "kv/limits.h"
#include "kv/slice.h"

struct key_target {
    struct kv_slice path;  /* with its first '/', without '?' */
    struct kv_slice query; /* behind '?', empty without one */
};

/* KV_INVALID: neither `/…` nor `scheme://authority/…` (that is: `*`, an authority, nothing). */
enum kv_err key_target(struct kv_slice request_target, struct key_target *out);

/* Decodes `%XX` of `encoded` into `space`, which has room for `space_bytes`. KV_INVALID: a '%' without two hex digits.
 * KV_TOO_LARGE: does not fit. `out` points into `space`. */
enum kv_err key_unescape(struct kv_slice encoded, uint8_t *space, size_t space_bytes, struct kv_slice *out);

/* The key of a path (with its first '/'); `space` holds the path's bytes or KV_KEY_BYTES_MAX, whichever is less, and `out`
 * points into it.
 * KV_NOT_FOUND: the path is "/". KV_TOO_LARGE: above KV_KEY_BYTES_MAX. KV_INVALID: `why` says what is wrong, to
 * follow "the key"; static. */
enum kv_err key_decode(struct kv_slice path, uint8_t *space, size_t space_bytes, struct kv_slice *out,
                       const char **why);

/* KV_OK, KV_NOT_FOUND (empty), KV_TOO_LARGE or KV_INVALID as above, for a key that came another way (a batch). */
enum kv_err key_check(struct kv_slice key, const char **why);

/* All of it, as kv/utf8.h has it: U+0000 is a character, too. */
bool key_is_utf8(struct kv_slice bytes);

#endif
