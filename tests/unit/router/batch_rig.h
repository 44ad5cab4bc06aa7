/* tests/unit/router/batch_rig.h -- one batch read from a body, for test_batch_json.c and test_batch_msgpack.c. */
#ifndef KV_TESTS_BATCH_RIG_H
#define KV_TESTS_BATCH_RIG_H

#include <criterion/criterion.h>
#include <stdlib.h>

#include "batch.h"
#include "digest.h"

struct rig {
    struct codec *codec;
    struct batch batch;
    struct batch_refusal refusal;
    enum kv_err err;
};

/* The body is a copy of exact size, gone before anything is looked at: the sanitizer sees what borrows from it. */
static inline struct rig rig_read(enum batch_format format, struct kv_slice body, uint64_t value_bytes_max)
{
    struct rig rig = {.codec = codec_new(1)};
    uint8_t *copy = kv_copy(body);
    struct batch_limits limits = {value_bytes_max, rig.codec};
    batch_init(&rig.batch, format);
    rig.err = batch_read(&rig.batch, kv_slice(copy, body.bytes), &limits, &rig.refusal);
    free(copy);
    return rig;
}

static inline void rig_free(struct rig *rig)
{
    batch_free(&rig->batch);
    codec_free(&rig->codec);
}

/* The content that an operation brings. */
static inline struct kv_buf rig_value(const struct rig *rig, size_t index)
{
    struct kv_buf out = {0};
    const struct backend_content *content = rig->batch.ops[index].content;
    cr_assert_eq(codec_decode(rig->codec, content->stored, content->size, &out), KV_OK);
    struct kv_hash hash = digest_of(kv_buf_peek(&out));
    cr_expect(kv_hash_equal(&hash, &content->hash));
    return out;
}

#define rig_expect_value(rig, index, expected)                                                                         \
    do {                                                                                                               \
        struct kv_buf value = rig_value(rig, index);                                                                   \
        cr_expect(kv_slice_equal(kv_buf_peek(&value), expected), "operation %d", (int)(index));                        \
        kv_buf_free(&value);                                                                                           \
    } while (0)

static inline void rig_expect_refusal(enum batch_format format, struct kv_slice body, int status, const char *code,
                                      const char *sentence)
{
    struct rig rig = rig_read(format, body, 1000);
    const char *shown = format == BATCH_JSON && body.bytes < 200 ? (const char *)body.data : "";
    cr_expect_eq(rig.err, status == 413 ? KV_TOO_LARGE : KV_INVALID, "%s: %s", shown, kv_err_text(rig.err));
    if (rig.err != KV_OK) {
        cr_expect_eq(rig.refusal.status, status, "%s: %d", shown, rig.refusal.status);
        cr_expect_str_eq(rig.refusal.code, code, "%s: %s", shown, rig.refusal.code);
        cr_expect(strstr(rig.refusal.sentence, sentence) != NULL, "%s: '%s' lacks '%s'", shown, rig.refusal.sentence,
                  sentence);
    }
    rig_free(&rig);
}

#endif
