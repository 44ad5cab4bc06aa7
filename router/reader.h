/* router/reader.h -- walks the stored form of one object and yields what a response sends, frame by frame.
 * Does:     collects the index, finds the frames that a range needs, checks and decodes them one by one; or hands the
 *           compressed frames on as they are, without the index. Asks for whole frames, so that a raw one that comes in one
 *           piece is copied once, or not at all.
 *           A frame that comes in a slot of an arena (arena.h) as a whole is given out from there.
 * Promises: a byte leaves only when its frame's checksum held. Keeps at most the last chunk, one fed piece, part of a frame
 *           and the index (12 bytes per 256 KiB of content); a chunk is one decoded frame, or about as many compressed bytes.
 * Fails:    READER_CORRUPT: the stored form contradicts itself; nothing of that frame was given out.
 * Pure: whoever drives it fetches what it needs. Tests: unit/router/test_reader.c. */
#ifndef KV_ROUTER_READER_H
#define KV_ROUTER_READER_H

#include "arena.h"
#include "codec.h"
#include "range.h"

/* A slow client keeps as much waiting, and a small request finds as much in front of it: one frame. */
#define READER_FETCH_BYTES_MAX KV_CONTENT_FRAME_BYTES

enum reader_step {
    READER_CHUNK, /* `chunk` is the next bytes */
    READER_NEED,  /* feed what reader_needs asks for */
    READER_END,   /* all was given out before */
    READER_CORRUPT,
};

struct reader {
    uint64_t size;
    uint64_t stored_bytes;
    struct range range; /* of the content */
    bool compressed;    /* frames go out as they are: the range is the whole */
    bool indexed;
    uint64_t frame;      /* next to give out */
    uint64_t frame_end;  /* behind the last */
    uint64_t frame_at;   /* where it begins within the stored form */
    struct kv_buf index; /* complete when `indexed` */
    struct kv_slice fed; /* stored bytes at hand: within `kept` or `slot`, borrowed when there is neither */
    uint64_t fed_at;     /* where they begin within the stored form */
    struct kv_buf kept;
    struct arena_slot slot;
    struct kv_buf given; /* what the last chunk lies in, or */
    struct arena_slot given_slot;
    struct kv_slice whole; /* of the frame before `frame`, which the chunk is a part of; not when `compressed` */
};

/* `compressed` only for KV_CODEC_ZSTD. The whole of an empty content has a range of 0 bytes. */
void reader_begin(struct reader *reader, const struct kv_object *object, struct range range, bool compressed);
/* Bytes at the front of the stored form, borrowed until reader_keep, or the reader's when it takes the slot that they lie in. Once,
 * right after reader_begin; may be empty, without a slot (NULL). */
void reader_start(struct reader *reader, struct kv_slice bytes, struct arena_slot *slot);
/* Copies what is left of the borrowed bytes, which a chunk never is. Call it before they die, unless all was given out. */
void reader_keep(struct reader *reader);
/* `chunk` is valid until the next reader_next or reader_free, whatever is fed meanwhile. */
enum reader_step reader_next(struct reader *reader, struct codec *codec, struct kv_slice *chunk);
/* Will reader_next say READER_NEED? Not when all was given out. */
bool reader_lacks(struct reader *reader);
/* What to fetch after READER_NEED, or when it lacks something: at least 1 byte, at most READER_FETCH_BYTES_MAX. */
void reader_needs(const struct reader *reader, uint64_t *offset, uint64_t *bytes);
/* The bytes at that offset: at least 1, at most what was asked. Borrowed until reader_keep, or the reader's when it takes the slot
 * that they lie in. */
void reader_feed(struct reader *reader, struct kv_slice bytes, struct arena_slot *slot);
/* Nothing is left to give out. */
bool reader_through(const struct reader *reader);
void reader_free(struct reader *reader);

#endif
