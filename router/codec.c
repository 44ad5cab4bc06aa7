/* router/codec.c -- see codec.h.
 * A frame that looks random is not given to zstd: 512 bytes of a short content are counted (0.2 us, zstd would take 1.3).
 * Longer contents are always tried, since zstd gives up on them quickly and repeats of random blocks do compress. Of contents
 * below 512 bytes, what zstd would gain is estimated (0.15 us for 100 bytes, zstd takes 1.6, mostly for nothing). */
#include "codec.h"

#include <stdlib.h>
#ifdef __x86_64__
#include <xxh_x86dispatch.h> /* XXH3 with the vectors that this CPU has */
#else
#include <xxhash.h>
#endif
#include <zstd.h>

#include "digest.h"
#include "kv/log.h"

#define RAW_BIT 0x80000000u

enum {
    TINY_BYTES_MAX = 32,       /* below it a zstd frame's own header eats the gain */
    SAMPLE_BYTES = 512,        /* counted to tell random bytes; shorter contents are estimated */
    ZSTD_HEAD_BYTES = 8,       /* a zstd frame takes a few more: what is saved must be above that */
    REPEAT_BITS = 9,           /* of the hash of four bytes */
    SAMPLED_BYTES_MAX = 16384, /* contents above it are always tried */
    TAIL_BYTES_MAX = 4096      /* a last frame up to this follows the frames before it, whatever zstd makes of it */
};

struct codec {
    int level;
    ZSTD_CCtx *packer; /* NULL until it is needed */
    ZSTD_DCtx *unpacker;
};

struct codec *codec_new(int level)
{
    struct codec *codec = kv_alloc_zero(1, sizeof(*codec));
    codec->level = level;
    return codec;
}

void codec_trim(struct codec *codec)
{
    ZSTD_freeCCtx(codec->packer); /* which may be NULL */
    ZSTD_freeDCtx(codec->unpacker);
    codec->packer = NULL;
    codec->unpacker = NULL;
}

void codec_free(struct codec **codec)
{
    if (*codec == NULL)
        return;
    codec_trim(*codec);
    free(*codec);
    *codec = NULL;
}

static ZSTD_CCtx *packer_of(struct codec *codec)
{
    if (codec->packer == NULL && (codec->packer = ZSTD_createCCtx()) == NULL)
        kv_fatal("no memory to compress");
    return codec->packer;
}

static ZSTD_DCtx *unpacker_of(struct codec *codec)
{
    if (codec->unpacker == NULL && (codec->unpacker = ZSTD_createDCtx()) == NULL)
        kv_fatal("no memory to decompress");
    return codec->unpacker;
}

struct kv_hash codec_hash(struct kv_slice content)
{
    return digest_of(content);
}

/* Random bytes meet each other by chance: the squares of 512 counts over 256 values add up to 1,534 on average, with a
 * standard deviation of 45. Text and machine code have 3,000 and more. */
static bool looks_random(struct kv_slice content)
{
    enum { SQUARES_RANDOM_MAX = 1800 };
    uint16_t counts[256] = {0};
    uint32_t squares = 0;
    size_t stride = content.bytes / SAMPLE_BYTES;
    for (size_t i = 0; i < SAMPLE_BYTES; i++)
        counts[content.data[i * stride]]++;
    for (size_t i = 0; i < 256; i++)
        squares += (uint32_t)counts[i] * counts[i];
    return squares < SQUARES_RANDOM_MAX;
}

/* Positions whose four bytes stood somewhere before: about what matches save. */
static size_t count_repeats(struct kv_slice content)
{
    uint32_t last[1u << REPEAT_BITS] = {0}; /* the four bytes of each hash that were seen last */
    size_t repeats = 0;
    for (size_t i = 0; i + sizeof *last <= content.bytes; i++) {
        uint32_t now;
        memcpy(&now, content.data + i, sizeof now);
        uint32_t *before = &last[now * 2654435761u >> (32 - REPEAT_BITS)];
        repeats += *before == now;
        *before = now;
    }
    return repeats;
}

/* Bits per byte that frequent bytes leave unused, in eighths, from their collision entropy: 8 + log2 of the probability that two
 * bytes are the same; less what a table of the bytes that occur takes. In bytes of the whole. */
static size_t count_skew(struct kv_slice content)
{
    uint16_t counts[256] = {0};
    uint32_t pairs = 0, distinct = 0, bytes = (uint32_t)content.bytes;
    for (size_t i = 0; i < content.bytes; i++) {
        uint16_t *count = &counts[content.data[i]];
        distinct += *count == 0;
        pairs += (*count)++; /* of equal bytes */
    }
    /* 256 where all bytes are as likely */
    uint32_t ratio = (uint32_t)((uint64_t)pairs * 131072 / (bytes * (bytes - 1)));
    if (ratio < 256)
        return 0;
    uint32_t whole = 31u - (uint32_t)__builtin_clz(ratio);
    uint32_t eighths = 8 * (whole - 8) + (ratio >> (whole - 3) & 7);
    uint32_t gain = bytes * eighths / 64, table = distinct / 2;
    return gain > table ? gain - table : 0;
}

static bool worth_trying(const struct codec *codec, struct kv_slice content)
{
    if (codec->level == 0 || content.bytes < TINY_BYTES_MAX)
        return false;
    if (content.bytes < SAMPLE_BYTES)
        return count_skew(content) > ZSTD_HEAD_BYTES || count_repeats(content) > ZSTD_HEAD_BYTES;
    return content.bytes > SAMPLED_BYTES_MAX || !looks_random(content);
}

/* Bytes that zstd made at the end of `out`, 0 when it does not shrink (`force`: then too). */
static size_t try_zstd(struct codec *codec, struct kv_slice content, bool force, struct kv_buf *out)
{
    if (!force && !worth_trying(codec, content))
        return 0;
    /* one byte less than raw, or it is not worth it */
    size_t room = force ? ZSTD_compressBound(content.bytes) : content.bytes - 1;
    size_t made =
        ZSTD_compressCCtx(packer_of(codec), kv_buf_reserve(out, room), room, content.data, content.bytes, codec->level);
    return ZSTD_isError(made) ? 0 : made;
}

/* The stored frame is behind the end of `out` (zstd), or `content` itself (raw). */
static struct codec_entry make_frame(struct codec *codec, struct kv_slice content, bool force, struct kv_buf *out,
                                     struct kv_slice *frame)
{
    kv_assert(content.bytes <= KV_CONTENT_FRAME_BYTES);
    size_t made = try_zstd(codec, content, force, out);
    *frame = made != 0 ? kv_slice(out->data + out->bytes, made) : content;
    return (struct codec_entry){
        .stored_bytes = (uint32_t)frame->bytes, .raw = made == 0, .checksum = XXH3_64bits(frame->data, frame->bytes)};
}

static void append_frame(struct codec_entry entry, struct kv_slice frame, struct kv_buf *out)
{
    if (entry.raw)
        kv_buf_append(out, frame);
    else
        out->bytes += frame.bytes;
}

enum kv_err codec_check_frame(struct codec_entry entry, struct kv_slice stored)
{
    if (stored.bytes != entry.stored_bytes || stored.bytes == 0 || stored.bytes > CODEC_FRAME_BYTES_MAX)
        return KV_CORRUPT;
    return XXH3_64bits(stored.data, stored.bytes) == entry.checksum ? KV_OK : KV_CORRUPT;
}

enum kv_err codec_decode_frame(struct codec *codec, struct codec_entry entry, struct kv_slice stored,
                               size_t content_bytes, struct kv_buf *out)
{
    if (codec_check_frame(entry, stored) != KV_OK || content_bytes > KV_CONTENT_FRAME_BYTES)
        return KV_CORRUPT;
    if (entry.raw) {
        if (stored.bytes != content_bytes)
            return KV_CORRUPT;
        kv_buf_append(out, stored);
        return KV_OK;
    }
    size_t made = ZSTD_decompressDCtx(unpacker_of(codec), kv_buf_reserve(out, content_bytes), content_bytes,
                                      stored.data, stored.bytes);
    if (ZSTD_isError(made) || made != content_bytes)
        return KV_CORRUPT;
    out->bytes += made;
    return KV_OK;
}

struct codec_entry codec_entry_read(const uint8_t *index, uint64_t frame)
{
    const uint8_t *at = index + frame * CODEC_INDEX_ENTRY_BYTES;
    uint32_t length = 0;
    uint64_t checksum = 0;
    for (unsigned i = 0; i < 4; i++)
        length |= (uint32_t)at[i] << (8 * i);
    for (unsigned i = 0; i < 8; i++)
        checksum |= (uint64_t)at[4 + i] << (8 * i);
    return (struct codec_entry){length & ~RAW_BIT, (length & RAW_BIT) != 0, checksum};
}

void codec_entry_write(struct codec_entry entry, uint8_t out[CODEC_INDEX_ENTRY_BYTES])
{
    uint32_t length = entry.stored_bytes | (entry.raw ? RAW_BIT : 0);
    for (unsigned i = 0; i < 4; i++)
        out[i] = (uint8_t)(length >> (8 * i));
    for (unsigned i = 0; i < 8; i++)
        out[4 + i] = (uint8_t)(entry.checksum >> (8 * i));
}

/* ---- a complete stored form --------------------------------------------------------------------------------------- */

void codec_writer_begin(struct codec_writer *writer, struct codec *codec, uint64_t size, struct kv_buf *index,
                        struct kv_buf *frames)
{
    size_t index_bytes = codec_index_bytes(size);
    *writer = (struct codec_writer){.codec = codec, .index = index, .frames = frames, .index_at = index->bytes};
    kv_buf_reserve(index, index_bytes + 1);
    index->bytes += index_bytes;
}

/* A content whose frames are all zstd can be sent as it is stored: a short tail shall not spoil that, as long as what zstd
 * may add to it was saved before. */
static bool forces_zstd(const struct codec_writer *writer, struct kv_slice content)
{
    uint64_t saved = writer->content_bytes - writer->frame_bytes;
    return content.bytes <= TAIL_BYTES_MAX && writer->zstd_frames > 0 && writer->raw_frames == 0 &&
           saved >= ZSTD_compressBound(content.bytes) - content.bytes;
}

static struct codec_entry write_entry(struct codec_writer *writer, struct kv_slice content, struct kv_slice *frame)
{
    struct codec_entry entry = make_frame(writer->codec, content, forces_zstd(writer, content), writer->frames, frame);
    codec_entry_write(entry, writer->index->data + writer->index_at);
    writer->index_at += CODEC_INDEX_ENTRY_BYTES;
    writer->content_bytes += content.bytes;
    writer->frame_bytes += entry.stored_bytes;
    kv_assert(writer->frame_bytes <= writer->content_bytes);
    writer->raw_frames += entry.raw;
    writer->zstd_frames += !entry.raw;
    return entry;
}

void codec_writer_add(struct codec_writer *writer, struct kv_slice content)
{
    struct kv_slice frame;
    struct codec_entry entry = write_entry(writer, content, &frame);
    append_frame(entry, frame, writer->frames);
}

struct kv_slice codec_writer_make(struct codec_writer *writer, struct kv_slice content)
{
    struct kv_slice frame;
    write_entry(writer, content, &frame);
    return frame;
}

enum kv_codec codec_writer_end(struct codec_writer *writer)
{
    if (writer->zstd_frames == 0)
        return KV_CODEC_RAW;
    return writer->raw_frames == 0 ? KV_CODEC_ZSTD : KV_CODEC_MIXED;
}

enum kv_codec codec_encode(struct codec *codec, struct kv_slice content, struct kv_buf *out)
{
    struct codec_writer writer;
    if (content.bytes <= KV_CONTENT_FRAME_BYTES)
        kv_buf_reserve(out, codec_index_bytes(content.bytes) + content.bytes); /* once */
    codec_writer_begin(&writer, codec, content.bytes, out, out);
    for (size_t at = 0; at < content.bytes; at += KV_CONTENT_FRAME_BYTES) {
        size_t left = content.bytes - at;
        codec_writer_add(&writer,
                         kv_slice(content.data + at, left < KV_CONTENT_FRAME_BYTES ? left : KV_CONTENT_FRAME_BYTES));
    }
    return codec_writer_end(&writer);
}

static enum kv_err decode_all(struct codec *codec, struct kv_slice stored, uint64_t size, struct kv_buf *out)
{
    uint64_t at = codec_index_bytes(size);
    for (uint64_t frame = 0; frame < codec_frame_count(size); frame++) {
        struct codec_entry entry = codec_entry_read(stored.data, frame);
        uint64_t left = size - frame * KV_CONTENT_FRAME_BYTES;
        size_t content_bytes = left < KV_CONTENT_FRAME_BYTES ? left : KV_CONTENT_FRAME_BYTES;
        if (entry.stored_bytes > stored.bytes - at)
            return KV_CORRUPT;
        enum kv_err err =
            codec_decode_frame(codec, entry, kv_slice(stored.data + at, entry.stored_bytes), content_bytes, out);
        if (err != KV_OK)
            return err;
        at += entry.stored_bytes;
    }
    return at == stored.bytes ? KV_OK : KV_CORRUPT;
}

enum kv_err codec_peek(struct codec *codec, struct kv_slice stored, uint64_t size, struct kv_buf *space,
                       struct kv_slice *content)
{
    if (codec_frame_count(size) == 1 && stored.bytes >= CODEC_INDEX_ENTRY_BYTES &&
        codec_entry_read(stored.data, 0).raw) {
        struct kv_slice frame = kv_slice(stored.data + CODEC_INDEX_ENTRY_BYTES, stored.bytes - CODEC_INDEX_ENTRY_BYTES);
        *content = frame;
        return frame.bytes == size ? codec_check_frame(codec_entry_read(stored.data, 0), frame) : KV_CORRUPT;
    }
    space->bytes = 0;
    enum kv_err err = codec_decode(codec, stored, size, space);
    *content = kv_buf_peek(space);
    return err;
}

enum kv_err codec_decode(struct codec *codec, struct kv_slice stored, uint64_t size, struct kv_buf *out)
{
    size_t bytes_before = out->bytes;
    if (size > KV_STORED_BYTES_MAX || stored.bytes < codec_index_bytes(size))
        return KV_CORRUPT;
    enum kv_err err = decode_all(codec, stored, size, out);
    if (err != KV_OK)
        out->bytes = bytes_before;
    return err;
}
