/* Range headers. Input: size of the content, 8 bytes; the header's value. */
#include "fuzz.h"

#include "range.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kv_slice input = kv_slice(data, bytes);
    uint64_t size = fuzz_number(&input, 8);
    struct range range;
    if (range_parse(input, size, &range) == RANGE_PART)
        FUZZ_CHECK(range.bytes >= 1 && range.first < size && range.bytes <= size - range.first);
    return 0;
}
