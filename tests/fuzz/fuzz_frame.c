/* What a peer sends: bytes cut into frames, bodies decoded and walked, each message as its type says. Input: role, then a stream. */
#include "fuzz.h"

#include "../unit/wire/message_cases.h"

static void decode(const struct kv_frame *frame)
{
    for (size_t i = 0; i < CASE_COUNT; i++)
        if (cases[i].type == frame->type)
            cases[i].get(frame->body, false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kv_slice input = kv_slice(data, bytes);
    enum kv_role from = fuzz_number(&input, 1) % 2 == 0 ? KV_ROLE_ROUTER : KV_ROLE_SHARD;
    struct kv_frame frame;
    size_t used = 0;
    enum kv_err err;
    while ((err = kv_frame_peek(input, from, &frame, &used)) == KV_OK) {
        FUZZ_CHECK(used <= input.bytes && frame.body.bytes == used - KV_FRAME_HEADER_BYTES);
        decode(&frame);
        fuzz_take(&input, used);
    }
    FUZZ_CHECK(err == KV_INVALID || (err == KV_NOT_FOUND && used > input.bytes));
    return 0;
}
