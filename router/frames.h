/* router/frames.h -- frames of large contents, decoded and checked, in memory: a hot large value is sent without asking its shard for it.
 * Does:     counts who asks for which frames, keeps those that are asked for again, and lends them out without a copy. A frame is named
 *           by the SHA-256 of its content and its number, and contents never change: what is here is never stale. Which content
 *           a key has is asked or proved for each answer, as ever.
 * Owns:     the bytes of the frames. One thread's, no locks.
 * Promises: bytes lent out stay as they are until they are let go. Values that are read once cost others nothing: a frame is kept when
 *           it is asked for the second time, and takes only the place of frames that were asked for less often of late.
 * Limits:   bytes_max for all frames, lent out or not; a quarter of it for one answer. What is counted but not kept takes some 150
 *           bytes per frame, and is as many as FRAMES_ASKED_BYTES go into bytes_max, the oldest going first.
 *           Counts halve with each sweep: what nobody asks for leaves after two to nine of them.
 * Tests:    unit/router/test_frames.c, http/test_http_frames.c. */
#ifndef KV_ROUTER_FRAMES_H
#define KV_ROUTER_FRAMES_H

#include "kv/buf.h"
#include "kv/model.h"

#define FRAMES_ASKED_BYTES 16384u
#define FRAMES_ASKS_MIN 2u /* before a frame is kept */

struct frames;

/* Some frames of one content: [first, end). */
struct frames_span {
    struct kv_hash hash;
    uint64_t first, end;
};

/* NULL for 0 bytes: every function takes NULL for a cache that holds nothing. */
struct frames *frames_new(uint64_t bytes_max);
void frames_free(struct frames **frames);

/* Somebody asks for these. True: all of them are here, and held until frames_let_go. False: offer what the shard sends (frames_offer). */
bool frames_hold(struct frames *frames, const struct frames_span *span);
/* The content of one that is held. */
struct kv_slice frames_peek(const struct frames *frames, const struct kv_hash *hash, uint64_t number);
void frames_let_go(struct frames *frames, const struct frames_span *span);
/* Whole content of a frame whose checksum held; copied if it is to be kept. */
void frames_offer(struct frames *frames, const struct kv_hash *hash, uint64_t number, struct kv_slice content);

/* About every ten seconds. True: memory was freed. */
bool frames_sweep(struct frames *frames);

uint64_t frames_bytes(const struct frames *frames);
uint64_t frames_count(const struct frames *frames);

#endif
