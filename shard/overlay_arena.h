/* shard/overlay_arena.h -- the memory of one overlay generation: taken in small blocks, released at once.
 * Does:     hands out 8-byte aligned blocks from chunks; a block given back waits in the list of its size class for the next
 *           of that class.
 * Owns:     the chunks, until overlay_arena_free; then they wait for the next arena of the process, since fresh memory costs a
 *           page fault and a page of zeros for every 4 KiB. Zero-initialised is empty and valid; not thread-safe, and all
 *           arenas of a process belong to one thread.
 * Promises: `bytes` never counts less than the rows take: it is what was cut from the chunks, with rounding and with
 *           blocks that wait for reuse.
 * Fails:    never; out of memory aborts.
 * Tests:    unit/shard/test_overlay.c. */
#ifndef KV_SHARD_OVERLAY_ARENA_H
#define KV_SHARD_OVERLAY_ARENA_H

#include "kv/buf.h"

#define OVERLAY_CHUNK_BYTES (256u * 1024)
#define OVERLAY_ARENA_UNIT 8u
/* 128 classes of a unit up to 1 KiB, then eight per doubling, up to 2^40 bytes. */
#define OVERLAY_CLASSES (128u + 8u * 30u)

struct overlay_chunk;

struct overlay_arena {
    struct overlay_chunk *chunks; /* newest first */
    uint8_t *free_at;             /* what is left of the chunk in use */
    size_t free_bytes;
    size_t bytes;
    void *waiting[OVERLAY_CLASSES]; /* given back, singly linked through their first bytes */
};

void *overlay_arena_take(struct overlay_arena *arena, size_t bytes);
/* `bytes` as it was taken. */
void overlay_arena_give(struct overlay_arena *arena, void *block, size_t bytes);
/* What a block of `bytes` takes. */
size_t overlay_arena_rounded(size_t bytes);
void overlay_arena_free(struct overlay_arena *arena);
/* Gives the chunks that wait back to the system. */
void overlay_arena_trim(void);

#endif
