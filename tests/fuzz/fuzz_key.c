/* Request targets: cut into path and query, percent-decoded, checked. Input: the target as a client would write it. */
#include "fuzz.h"

#include "key.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kv_slice whole = kv_slice(data, bytes), key, query;
    struct key_target target;
    const char *why = NULL;
    if (key_target(whole, &target) != KV_OK)
        return 0;
    FUZZ_CHECK(target.path.bytes > 0 && target.path.data[0] == '/' && target.path.bytes + target.query.bytes <= bytes);
    size_t space_bytes = target.path.bytes < KV_KEY_BYTES_MAX ? target.path.bytes : KV_KEY_BYTES_MAX;
    uint8_t *space = malloc(space_bytes);
    enum kv_err err = key_decode(target.path, space, space_bytes, &key, &why);
    FUZZ_CHECK(err != KV_INVALID || why != NULL);
    if (err == KV_OK)
        FUZZ_CHECK(key.bytes >= 1 && key.bytes <= KV_KEY_BYTES_MAX && key_check(key, &why) == KV_OK &&
                   key_is_utf8(key) && memchr(key.data, 0, key.bytes) == NULL);
    free(space);
    space = malloc(target.query.bytes + 1);
    if (key_unescape(target.query, space, target.query.bytes, &query) == KV_OK)
        FUZZ_CHECK(query.bytes <= target.query.bytes);
    free(space);
    return 0;
}
