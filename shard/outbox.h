/* shard/outbox.h -- the answers of one session on their way out: no byte leaves before the journal records it rests on are durable.
 * Does:     each frame names the record that must be durable before it may leave: 0 or a durable one joins the bytes on their way
 *           at once, the others are held aside and follow in their own order. A frame that rests on nothing pending
 *           overtakes the held ones: otherwise every LOCKED would wait for the flush of the votes before it, and a write
 *           for two flushes instead of one. Requests are matched by id, so nobody counts on the order of answers.
 * Owns:     the bytes and the marks between held frames; moving bytes costs amortised constant time.
 * Fails:    never. The bound is the session's: it looks at outbox_bytes. Tests: unit/shard/test_outbox.c. */
#ifndef KV_SHARD_OUTBOX_H
#define KV_SHARD_OUTBOX_H

#include "kv/buf.h"
#include "kv/msg.h"

struct outbox_mark {
    uint64_t position; /* record that must be durable */
    uint64_t end;      /* offset in the stream of held bytes: up to here they may leave then */
};

/* Zero-initialised is empty and valid. All members are outbox.c's. */
struct outbox {
    struct kv_buf ready;
    size_t written; /* bytes at the front of ready that have left */
    struct kv_buf held;
    size_t moved;              /* bytes at the front of held that are in ready now */
    uint64_t base;             /* stream offset of held.data[0] */
    uint64_t durable;          /* as last told */
    uint64_t position;         /* of the frame under construction */
    size_t begin;              /* of it, in its buffer */
    struct outbox_mark *marks; /* positions and ends ascending */
    size_t marks_first;
    size_t marks_end;
    size_t marks_capacity;
};

/* Starts a frame and returns the buffer that its body is appended to; outbox_end ends it. */
struct kv_buf *outbox_begin(struct outbox *outbox, enum kv_msg type, uint64_t request_id, uint64_t position);
void outbox_end(struct outbox *outbox);
/* Records up to `durable` are on disk. */
void outbox_release(struct outbox *outbox, uint64_t durable);
/* What may leave now: valid until the next call. */
struct kv_slice outbox_peek(const struct outbox *outbox);
void outbox_consume(struct outbox *outbox, size_t bytes);
/* Everything that has not left, held or not. */
size_t outbox_bytes(const struct outbox *outbox);
/* Gives back buffers in which nothing waits. */
void outbox_trim(struct outbox *outbox);
void outbox_free(struct outbox *outbox);

#endif
