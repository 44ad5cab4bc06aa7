/* router/codec.h -- content to stored form and back: SHA-256, zstd frames of 256 KiB of content, a checksum per frame.
 * Stored form: an index, then the frames.
 *   index  per frame 12 bytes: u32 stored length, top bit set = raw | u64 XXH3-64 of the stored frame bytes   (little endian)
 *   frame  i holds content bytes [i * KV_CONTENT_FRAME_BYTES, …): a complete zstd frame, or raw where zstd does not shrink
 *          (a short last frame behind zstd frames is zstd anyway, so that the content can be sent as it is stored)
 * An empty content has no frames and a stored form of 0 bytes. Shards treat all of it as bytes.
 * Promises: what decodes is what was encoded, or KV_CORRUPT. Contexts are per thread and reused.
 * Tests: unit/router/test_codec.c. */
#ifndef KV_ROUTER_CODEC_H
#define KV_ROUTER_CODEC_H

#include "kv/buf.h"
#include "kv/err.h"
#include "kv/model.h"

#define CODEC_INDEX_ENTRY_BYTES 12u
#define CODEC_FRAME_BYTES_MAX KV_CONTENT_FRAME_BYTES /* stored: none is longer than its content could be */

static inline uint64_t codec_frame_count(uint64_t size)
{
    return (size + KV_CONTENT_FRAME_BYTES - 1) / KV_CONTENT_FRAME_BYTES;
}

static inline uint64_t codec_index_bytes(uint64_t size)
{
    return codec_frame_count(size) * CODEC_INDEX_ENTRY_BYTES;
}

struct codec_entry {
    uint32_t stored_bytes;
    bool raw;
    uint64_t checksum;
};

/* One per thread; holds the zstd contexts. */
struct codec;
struct codec *codec_new(int level); /* 0: everything raw */
void codec_free(struct codec **codec);
/* Gives the contexts back; they come again when they are needed. */
void codec_trim(struct codec *codec);

struct kv_hash codec_hash(struct kv_slice content);

/* Builds a stored form frame by frame: room for the index first, appended to `index`, then the frames, appended to `frames`.
 * Both belong to the caller; they may be the same buffer, which must then not be touched in between. The frames together are never
 * longer than the content. */
struct codec_writer {
    struct codec *codec;
    struct kv_buf *index;
    struct kv_buf *frames;
    size_t index_at; /* offset of the next entry within `index` */
    uint64_t content_bytes;
    uint64_t frame_bytes;
    uint64_t raw_frames;
    uint64_t zstd_frames;
};
void codec_writer_begin(struct codec_writer *writer, struct codec *codec, uint64_t size, struct kv_buf *index,
                        struct kv_buf *frames);
/* KV_CONTENT_FRAME_BYTES of content, less only for the last frame. */
void codec_writer_add(struct codec_writer *writer, struct kv_slice content);
/* The same, but the frame is the caller's to carry off: a raw one is `content` itself, others are valid until the next. */
struct kv_slice codec_writer_make(struct codec_writer *writer, struct kv_slice content);
enum kv_codec codec_writer_end(struct codec_writer *writer);

/* Appends the complete stored form of `content` to `out` and says which kind it became. */
enum kv_codec codec_encode(struct codec *codec, struct kv_slice content, struct kv_buf *out);
/* Checks and decodes one stored frame, of at most KV_CONTENT_FRAME_BYTES of content; exactly `content_bytes` must come out and
 * are appended to `out`. */
enum kv_err codec_decode_frame(struct codec *codec, struct codec_entry entry, struct kv_slice stored,
                               size_t content_bytes, struct kv_buf *out);
/* A complete stored form back to its content of `size` bytes, appended to `out`; KV_CORRUPT leaves `out` as it was. */
enum kv_err codec_decode(struct codec *codec, struct kv_slice stored, uint64_t size, struct kv_buf *out);
/* The same without a copy where it can be: `content` lies within `stored`, or in `space`. */
enum kv_err codec_peek(struct codec *codec, struct kv_slice stored, uint64_t size, struct kv_buf *space,
                       struct kv_slice *content);
/* Checks the bytes of a stored frame without decoding them: what goes out as zstd must be what was stored. */
enum kv_err codec_check_frame(struct codec_entry entry, struct kv_slice stored);
struct codec_entry codec_entry_read(const uint8_t *index, uint64_t frame);
void codec_entry_write(struct codec_entry entry, uint8_t out[CODEC_INDEX_ENTRY_BYTES]);

#endif
