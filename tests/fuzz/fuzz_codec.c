/* Stored contents: index, checksums, zstd frames. Input: flags, the size that the object claims, the stored form. With flag 1 the
 * checksums are made right first, or the fuzzer would never get behind them; with flag 2 the frames are handed on undecoded. */
#include "fuzz.h"

#include "reader.h"
#include <xxhash.h>

enum { SIZE_MAX_USUAL = 3 * KV_CONTENT_FRAME_BYTES };

static void mend(uint8_t *stored, size_t bytes, uint64_t size)
{
    size_t at = (size_t)codec_index_bytes(size);
    for (uint64_t frame = 0; frame < codec_frame_count(size) && at <= bytes; frame++) {
        struct codec_entry entry = codec_entry_read(stored, frame);
        size_t frame_bytes = entry.stored_bytes < bytes - at ? entry.stored_bytes : bytes - at;
        entry.checksum = XXH3_64bits(stored + at, frame_bytes);
        codec_entry_write(entry, stored + frame * CODEC_INDEX_ENTRY_BYTES);
        at += frame_bytes;
    }
}

static enum reader_step read_all(const struct kv_object *object, struct kv_slice stored, bool compressed,
                                 struct codec *codec, struct kv_buf *out)
{
    struct reader reader;
    struct kv_slice chunk;
    enum reader_step step = READER_NEED;
    reader_begin(&reader, object, (struct range){0, object->size}, compressed);
    reader_start(&reader, kv_slice(stored.data, stored.bytes / 2), NULL);
    while ((step = reader_next(&reader, codec, &chunk)) == READER_CHUNK || step == READER_NEED) {
        uint64_t offset, bytes;
        reader_keep(&reader);
        if (step == READER_CHUNK) {
            kv_buf_append(out, chunk);
            continue;
        }
        reader_needs(&reader, &offset, &bytes);
        FUZZ_CHECK(bytes >= 1 && bytes <= READER_FETCH_BYTES_MAX && offset < stored.bytes &&
                   bytes <= stored.bytes - offset);
        reader_feed(&reader, kv_slice(stored.data + offset, bytes), &(struct arena_slot){0});
    }
    reader_free(&reader);
    return step;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct codec *codec;
    struct kv_slice input = kv_slice(data, bytes);
    struct kv_buf decoded = {0}, read = {0};
    uint64_t flags = fuzz_number(&input, 1), size = fuzz_number(&input, 8);
    if (codec == NULL)
        codec = codec_new(1);
    if ((flags & 1) != 0)
        size %= SIZE_MAX_USUAL + 1;
    uint8_t *stored = kv_copy(input);
    if ((flags & 1) != 0 && codec_index_bytes(size) <= input.bytes)
        mend(stored, input.bytes, size);
    struct kv_object object = {.size = size, .stored_bytes = input.bytes, .codec = KV_CODEC_ZSTD};
    enum kv_err err = codec_decode(codec, kv_slice(stored, input.bytes), size, &decoded);
    FUZZ_CHECK(err == KV_CORRUPT ? decoded.bytes == 0 : decoded.bytes == size);
    enum reader_step step = read_all(&object, kv_slice(stored, input.bytes), (flags & 2) != 0, codec, &read);
    if ((flags & 2) == 0 && err == KV_OK)
        FUZZ_CHECK(step == READER_END && kv_slice_equal(kv_buf_peek(&read), kv_buf_peek(&decoded)));
    kv_buf_free(&decoded);
    kv_buf_free(&read);
    free(stored);
    return 0;
}
