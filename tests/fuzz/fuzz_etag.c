/* If-Match and If-None-Match. Input: the header's value. */
#include "fuzz.h"

#include "etag.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct etag_list list = {0};
    struct etag tag;
    struct kv_hash hash = {{0xab}}, only;
    if (etag_list_parse(kv_slice(data, bytes), &list) != KV_OK)
        return 0;
    struct kv_slice rest = list.tags;
    unsigned count = 0;
    enum kv_err err = KV_END;
    while (!list.any && (err = etag_next(&rest, &tag)) == KV_OK) {
        etag_names(tag.opaque, &hash);
        FUZZ_CHECK(++count <= bytes);
    }
    FUZZ_CHECK(err == KV_END && (list.any || count > 0)); /* what was parsed can be walked */
    FUZZ_CHECK(!etag_list_matches(&list, &hash, true) || etag_list_matches(&list, &hash, false));
    if (!list.any && etag_list_only(&list, &only) == KV_OK)
        FUZZ_CHECK(etag_list_matches(&list, &only, true));
    return 0;
}
