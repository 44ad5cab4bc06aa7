/* Accept, Accept-Encoding, Authorization, and dates of conditional requests. Input: the header's value. */
#include "fuzz.h"

#include "accept.h"
#include "auth.h"
#include "condition.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kv_slice value = kv_slice(data, bytes), token;
    uint64_t date_s;
    accept_prefers_json(value);
    accept_prefers_zstd(value);
    if (auth_bearer(value, &token) == KV_OK)
        FUZZ_CHECK(token.bytes > 0 && token.bytes < bytes && token.data + token.bytes <= data + bytes);
    if (condition_date(value, &date_s) == KV_OK)
        FUZZ_CHECK(date_s < (uint64_t)1 << 40);
    return 0;
}
