/* POST /batch in JSON. Input: the body. What is answered must be JSON. */
#include "fuzz_batch.h"

#include <jansson.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kv_buf answer = {0};
    json_error_t why;
    fuzz_batch(BATCH_JSON, kv_slice(data, bytes), &answer);
    json_t *tree = json_loadb((const char *)answer.data, answer.bytes, 0, &why);
    FUZZ_CHECK(answer.bytes == 0 || tree != NULL);
    json_decref(tree);
    kv_buf_free(&answer);
    return 0;
}
