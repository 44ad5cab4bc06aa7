/* tests/fuzz/fuzz_batch.h -- a body of POST /batch, read, looked at and answered, for both formats. */
#ifndef KV_FUZZ_BATCH_H
#define KV_FUZZ_BATCH_H

#include "batch.h"
#include "digest.h"
#include "fuzz.h"

static void fuzz_batch_values(const struct batch *batch, struct codec *codec)
{
    for (size_t i = 0; i < batch->count; i++) {
        const struct backend_content *content = batch->ops[i].content;
        struct kv_buf out = {0};
        FUZZ_CHECK(batch->ops[i].key.bytes > 0 && (content != NULL) == (batch->ops[i].kind == BACKEND_PUT));
        if (content == NULL)
            continue;
        FUZZ_CHECK(codec_decode(codec, content->stored, content->size, &out) == KV_OK);
        struct kv_hash hash = digest_of(kv_buf_peek(&out));
        FUZZ_CHECK(kv_hash_equal(&hash, &content->hash));
        kv_buf_free(&out);
    }
}

/* The answer of a store where every read finds the body itself. */
static void fuzz_batch_answer(const struct batch *batch, struct kv_slice body, struct kv_buf *out)
{
    struct backend_op_result *results = calloc(batch->count + 1, sizeof(*results));
    for (size_t i = 0; i < batch->count; i++)
        results[i] = (struct backend_op_result){.found = true, .refs = i, .content = body};
    batch_write(batch, batch->count == 0 ? NULL : results, out);
    free(results);
}

static void fuzz_batch(enum batch_format format, struct kv_slice body, struct kv_buf *answer)
{
    static struct codec *codec;
    struct batch batch;
    struct batch_refusal refusal = {0};
    if (codec == NULL)
        codec = codec_new(1);
    struct batch_limits limits = {1000, codec};
    batch_init(&batch, format);
    enum kv_err err = batch_read(&batch, body, &limits, &refusal);
    FUZZ_CHECK(err == KV_OK || (refusal.status >= 400 && refusal.code != NULL && refusal.sentence[0] != '\0'));
    if (err == KV_OK) {
        fuzz_batch_values(&batch, codec);
        fuzz_batch_answer(&batch, body, answer);
    }
    batch_free(&batch);
}

#endif
