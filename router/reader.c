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

void reader_start(struct reader *reader, struct kv_slice bytes, struct arena_slot *slot)
{
    reader->fed = bytes;
    reader->fed_at = 0;
    if (slot != NULL)
        arena_lend(slot, &reader->slot);
}

static void copy_fed(struct reader *reader)
{
    kv_buf_append(&reader->kept, reader->fed);
    reader->fed = kv_buf_peek(&reader->kept);
    arena_give_back(&reader->slot);
}

void reader_keep(struct reader *reader)
{
    if (reader->kept.bytes == 0 && reader->slot.arena == NULL)
        copy_fed(reader);
}

/* Lets go of the first `bytes` that are at hand. */
static void pass(struct reader *reader, uint64_t bytes)
{
    size_t passed = bytes < reader->fed.bytes ? bytes : reader->fed.bytes;
    if (passed != 0)
        reader->fed = kv_slice(reader->fed.data + passed, reader->fed.bytes - passed);
    reader->fed_at += passed;
    if (reader->fed.bytes > 0)
        return;
    reader->kept.bytes = 0;
    arena_give_back(&reader->slot);
}

/* The index is complete: where the frames of the range begin and end, and whether all of them add up. */
static enum reader_step locate_frames(struct reader *reader)
{
    uint64_t at = codec_index_bytes(reader->size);
    for (uint64_t frame = 0; frame < codec_frame_count(reader->size); frame++) {
        if (frame == reader->frame)
            reader->frame_at = at;
        uint32_t bytes = codec_entry_read(reader->index.data, frame).stored_bytes;
        if (bytes == 0 || bytes > CODEC_FRAME_BYTES_MAX)
            return READER_CORRUPT;
        at += bytes;
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

/* The first `bytes` at hand, taken to be given out: not copied when nothing else is kept with them. */
static struct kv_slice take(struct reader *reader, size_t bytes)
{
    struct kv_slice taken = kv_slice(reader->fed.data, bytes);
    struct kv_buf given = reader->given;
    given.bytes = 0;
    if (reader->slot.arena != NULL && bytes == reader->fed.bytes) {
        reader->given_slot = reader->slot;
        reader->slot = (struct arena_slot){0};
    } else if (reader->kept.bytes != 0 && bytes == reader->fed.bytes) {
        reader->given = reader->kept;
        reader->kept = given;
    } else {
        kv_buf_append(&given, taken);
        taken = kv_buf_peek(&given);
        reader->given = given;
    }
    pass(reader, bytes);
    return taken;
}

static size_t content_bytes(const struct reader *reader)
{
    uint64_t left = reader->size - reader->frame * KV_CONTENT_FRAME_BYTES;
    return left < KV_CONTENT_FRAME_BYTES ? left : KV_CONTENT_FRAME_BYTES;
}

static enum reader_step give_frame(struct reader *reader, struct codec *codec, struct codec_entry entry,
                                   struct kv_slice stored, struct kv_slice *chunk)
{
    struct kv_slice content;
    if (entry.raw) {
        if (stored.bytes != content_bytes(reader) || codec_check_frame(entry, stored) != KV_OK)
            return READER_CORRUPT;
        content = take(reader, stored.bytes);
    } else {
        reader->given.bytes = 0;
        if (codec_decode_frame(codec, entry, stored, content_bytes(reader), &reader->given) != KV_OK)
            return READER_CORRUPT;
        content = kv_buf_peek(&reader->given);
    }
    reader->whole = content;
    *chunk = range_cut(reader->range, reader->frame * KV_CONTENT_FRAME_BYTES, content);
    reader->frame++;
    reader->frame_at += entry.stored_bytes;
    return READER_CHUNK;
}

/* Frames that are at hand, as they are stored, beginning with this one: CHUNK_BYTES of them end a chunk. */
static enum reader_step give_stored(struct reader *reader, struct kv_slice *chunk)
{
    struct kv_slice left = reader->fed;
    while (!reader_through(reader) && reader->fed.bytes - left.bytes < CHUNK_BYTES) {
        struct codec_entry entry = codec_entry_read(reader->index.data, reader->frame);
        if (entry.stored_bytes > left.bytes)
            break;
        if (entry.raw || codec_check_frame(entry, kv_slice(left.data, entry.stored_bytes)) != KV_OK)
            return READER_CORRUPT;
        left = kv_slice(left.data + entry.stored_bytes, left.bytes - entry.stored_bytes);
        reader->frame++;
        reader->frame_at += entry.stored_bytes;
    }
    *chunk = take(reader, reader->fed.bytes - left.bytes);
    return READER_CHUNK;
}

bool reader_lacks(struct reader *reader)
{
    struct codec_entry entry;
    struct kv_slice stored;
    return !reader->indexed || !peek_frame(reader, &entry, &stored);
}

enum reader_step reader_next(struct reader *reader, struct codec *codec, struct kv_slice *chunk)
{
    struct codec_entry entry;
    struct kv_slice stored;
    arena_give_back(&reader->given_slot);
    if (reader_through(reader))
        return READER_END;
    if (!reader->indexed) {
        enum reader_step step = gather_index(reader);
        if (step != READER_CHUNK)
            return step;
    }
    if (!peek_frame(reader, &entry, &stored))
        return READER_NEED;
    return reader->compressed ? give_stored(reader, chunk) : give_frame(reader, codec, entry, stored, chunk);
}

/* Where the last frame ends that a fetch from `at` brings as a whole. */
static uint64_t fetch_end(const struct reader *reader, uint64_t at)
{
    uint64_t end = reader->frame_at;
    for (uint64_t frame = reader->frame; frame < reader->frame_end; frame++) {
        uint32_t bytes = codec_entry_read(reader->index.data, frame).stored_bytes;
        if (end + bytes > at + READER_FETCH_BYTES_MAX)
            break;
        end += bytes;
    }
    return end;
}

void reader_needs(const struct reader *reader, uint64_t *offset, uint64_t *bytes)
{
    uint64_t at = reader->fed_at + reader->fed.bytes;
    if (reader->indexed && reader->frame_at > at)
        at = reader->frame_at;
    uint64_t end = reader->indexed ? fetch_end(reader, at) : reader->stored_bytes;
    kv_assert(end > at);
    *offset = at;
    *bytes = end - at < READER_FETCH_BYTES_MAX ? end - at : READER_FETCH_BYTES_MAX;
}

void reader_feed(struct reader *reader, struct kv_slice bytes, struct arena_slot *slot)
{
    uint64_t offset, asked;
    reader_needs(reader, &offset, &asked);
    kv_assert(bytes.bytes > 0 && bytes.bytes <= asked);
    if (reader->fed.bytes == 0) {
        reader->fed = bytes;
        reader->fed_at = offset;
        arena_lend(slot, &reader->slot);
        return;
    }
    if (reader->kept.bytes == 0)
        copy_fed(reader);
    kv_buf_consume(&reader->kept, reader->kept.bytes - reader->fed.bytes);
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
    kv_buf_free(&reader->given);
    arena_give_back(&reader->slot);
    arena_give_back(&reader->given_slot);
    reader->fed = kv_slice(NULL, 0);
}
