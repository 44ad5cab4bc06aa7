/* router/reader.c -- see reader.h. */
#include "reader.h"

#include "kv/log.h"

#define CHUNK_BYTES KV_CONTENT_FRAME_BYTES /* compressed frames are gathered up to about this much */

void reader_begin(struct reader *reader, const struct kv_object *object, struct range range, bool compressed)
{
    *reader = (struct reader){.size = object->size,
                              .stored_bytes = object->stored_bytes,
                              .range = range,
                              .compressed = compressed,
                              .indexed = object->size == 0};
    if (range.bytes != 0) {
        reader->frame = range.first / KV_CONTENT_FRAME_BYTES;
        reader->frame_end = codec_frame_count(range.first + range.bytes);
    }
}

void reader_start(struct reader *reader, struct kv_slice bytes)
{
    reader->fed = bytes;
    reader->fed_at = 0;
}

void reader_keep(struct reader *reader)
{
    if (reader->fed.bytes == 0 || reader->kept.bytes != 0)
        return;
    kv_buf_append(&reader->kept, reader->fed);
    reader->fed = kv_buf_peek(&reader->kept);
}

/* Lets go of the first `bytes` that are at hand. */
static void pass(struct reader *reader, uint64_t bytes)
{
    size_t passed = bytes < reader->fed.bytes ? bytes : reader->fed.bytes;
    if (passed != 0)
        reader->fed = kv_slice(reader->fed.data + passed, reader->fed.bytes - passed);
    reader->fed_at += passed;
}

/* The index is complete: where the frames of the range begin and end, and whether all of them add up. */
static enum reader_step locate_frames(struct reader *reader)
{
    uint64_t at = codec_index_bytes(reader->size);
    for (uint64_t frame = 0; frame < codec_frame_count(reader->size); frame++) {
        if (frame == reader->frame)
            reader->frame_at = at;
        at += codec_entry_read(reader->index.data, frame).stored_bytes;
        if (frame + 1 == reader->frame_end)
            reader->needed_end = at;
    }
    reader->indexed = true;
    return at == reader->stored_bytes ? READER_CHUNK : READER_CORRUPT;
}

static enum reader_step gather_index(struct reader *reader)
{
    uint64_t index_bytes = codec_index_bytes(reader->size);
    if (reader->size > KV_STORED_BYTES_MAX || index_bytes > reader->stored_bytes)
        return READER_CORRUPT;
    uint64_t missing = index_bytes - reader->index.bytes;
    size_t taken = missing < reader->fed.bytes ? missing : reader->fed.bytes;
    kv_buf_append(&reader->index, kv_slice(reader->fed.data, taken));
    pass(reader, taken);
    return reader->index.bytes == index_bytes ? locate_frames(reader) : READER_NEED;
}

/* The next frame, if it is at hand as a whole. */
static bool peek_frame(struct reader *reader, struct codec_entry *entry, struct kv_slice *stored)
{
    if (reader->frame_at > reader->fed_at)
        pass(reader, reader->frame_at - reader->fed_at);
    *entry = codec_entry_read(reader->index.data, reader->frame);
    if (reader->fed_at != reader->frame_at || reader->fed.bytes < entry->stored_bytes)
        return false;
    *stored = kv_slice(reader->fed.data, entry->stored_bytes);
    return true;
}

/* Cuts what lies outside of the range off a decoded frame, which begins at `begin` within `out`. */
static void trim(const struct reader *reader, struct kv_buf *out, size_t begin)
{
    uint64_t content_at = reader->frame * KV_CONTENT_FRAME_BYTES;
    uint64_t content_end = content_at + (out->bytes - begin);
    uint64_t range_end = reader->range.first + reader->range.bytes;
    if (content_end > range_end)
        out->bytes -= content_end - range_end;
    if (reader->range.first > content_at) {
        size_t cut = reader->range.first - content_at;
        memmove(out->data + begin, out->data + begin + cut, out->bytes - begin - cut);
        out->bytes -= cut;
    }
}

static enum kv_err give_frame(struct reader *reader, struct codec *codec, struct codec_entry entry,
                              struct kv_slice stored, struct kv_buf *out)
{
    size_t begin = out->bytes;
    uint64_t left = reader->size - reader->frame * KV_CONTENT_FRAME_BYTES;
    size_t content_bytes = left < KV_CONTENT_FRAME_BYTES ? left : KV_CONTENT_FRAME_BYTES;
    enum kv_err err;
    if (reader->compressed) {
        err = entry.raw ? KV_CORRUPT : codec_check_frame(entry, stored);
        if (err == KV_OK)
            kv_buf_append(out, stored);
    } else {
        err = codec_decode_frame(codec, entry, stored, content_bytes, out);
        if (err == KV_OK)
            trim(reader, out, begin);
    }
    return err;
}

bool reader_lacks(struct reader *reader)
{
    struct codec_entry entry;
    struct kv_slice stored;
    return !reader->indexed || !peek_frame(reader, &entry, &stored);
}

enum reader_step reader_next(struct reader *reader, struct codec *codec, struct kv_buf *out)
{
    size_t begin = out->bytes;
    struct codec_entry entry;
    struct kv_slice stored;
    if (reader_through(reader))
        return READER_END;
    if (!reader->indexed) {
        enum reader_step step = gather_index(reader);
        if (step != READER_CHUNK)
            return step;
    }
    do {
        if (!peek_frame(reader, &entry, &stored))
            return out->bytes > begin ? READER_CHUNK : READER_NEED;
        if (give_frame(reader, codec, entry, stored, out) != KV_OK)
            return READER_CORRUPT;
        reader->frame++;
        reader->frame_at += entry.stored_bytes;
    } while (reader->compressed && !reader_through(reader) && out->bytes - begin < CHUNK_BYTES);
    return READER_CHUNK;
}

void reader_needs(const struct reader *reader, uint64_t *offset, uint64_t *bytes)
{
    uint64_t end = reader->indexed ? reader->needed_end : reader->stored_bytes;
    uint64_t at = reader->fed_at + reader->fed.bytes;
    if (reader->indexed && reader->frame_at > at)
        at = reader->frame_at;
    uint64_t missing = end - at;
    kv_assert(missing > 0);
    *offset = at;
    *bytes = missing < READER_FETCH_BYTES_MAX ? missing : READER_FETCH_BYTES_MAX;
}

void reader_feed(struct reader *reader, struct kv_slice bytes)
{
    uint64_t offset, asked;
    reader_needs(reader, &offset, &asked);
    kv_assert(bytes.bytes > 0 && bytes.bytes <= asked);
    kv_buf_consume(&reader->kept, reader->kept.bytes - reader->fed.bytes);
    if (reader->fed.bytes == 0)
        reader->fed_at = offset;
    kv_buf_append(&reader->kept, bytes);
    reader->fed = kv_buf_peek(&reader->kept);
}

bool reader_through(const struct reader *reader)
{
    return reader->frame == reader->frame_end;
}

void reader_free(struct reader *reader)
{
    kv_buf_free(&reader->index);
    kv_buf_free(&reader->kept);
    reader->fed = kv_slice(NULL, 0);
}
