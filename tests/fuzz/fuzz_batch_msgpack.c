/* POST /batch in MessagePack. Input: the body. What is answered must be one value of MessagePack. */
#include "fuzz_batch.h"

#include "wire/pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kv_buf answer = {0};
    fuzz_batch(BATCH_MSGPACK, kv_slice(data, bytes), &answer);
    struct kv_unpack in = kv_unpack_start(kv_buf_peek(&answer));
    if (answer.bytes > 0)
        kv_unpack_skip(&in, BATCH_DEPTH_MAX);
    FUZZ_CHECK(kv_unpack_end(&in) == KV_OK);
    kv_buf_free(&answer);
    return 0;
}
