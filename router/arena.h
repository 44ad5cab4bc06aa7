/* router/arena.h -- memory that a shard writes contents into and the router sends them from: they pass no socket.
 * Does:     makes it, anew for each link to a shard, and keeps book of its slots, runs of units as long as the bytes that they are for: one
 *           is taken for an OPEN or a FETCH, which names it, and given back when its bytes have left. The shard keeps no book: a slot
 *           is written when a message that names it is handled.
 * Owns:     memory that nobody can make shorter, so that no byte of it can vanish while it is sent (arena_memory.h). It lasts until
 *           the last slot is back, whatever becomes of the link. One thread's, no locks.
 * Promises: what is in a slot when it is answered stays there until it is given back. A link is a queue: whatever was asked for
 *           before and not waited for was written before. What came over an earlier link has an arena of its own.
 * Limits:   KV_ARENA_UNITS of KV_ARENA_UNIT_BYTES, of which ARENA_SPARE_UNITS are not lent: slow clients leave the others a way.
 *           Units have pages once they were used; those go back to the system when all are idle.
 * Tests:    unit/router/test_arena.c, unit/router/test_backend_pieces.c, unit/router/test_backend_slots.c. */
#ifndef KV_ROUTER_ARENA_H
#define KV_ROUTER_ARENA_H

#include "kv/limits.h"
#include "kv/slice.h"

#define ARENA_SPARE_UNITS (KV_ARENA_UNITS / 4) /* as many pieces as are under way over a link, and one that just came */

struct arena;
struct body_file;

/* Of some bytes, or of none: zero-initialised. */
struct arena_slot {
    struct arena *arena;
    unsigned first, count; /* units */
};

/* `*file` is for the shard, and the caller's to free. NULL: the system has no descriptor or no memory left. */
struct arena *arena_new(struct body_file **file);
/* Sets NULL, and accepts it. The memory goes with the last slot. */
void arena_free(struct arena **arena);
/* For 1 to KV_SLOT_BYTES_MAX bytes. False: there is no such run. */
bool arena_take(struct arena *arena, size_t bytes, struct arena_slot *out);
struct kv_slice arena_peek(const struct arena_slot *slot, size_t bytes);
/* Moves the slot to `out`, for as long as a client takes to read it, unless too many are lent, or `slot` is none: false. */
bool arena_lend(struct arena_slot *slot, struct arena_slot *out);
/* It is none afterwards; none is accepted. */
void arena_give_back(struct arena_slot *slot);
/* The pages go back to the system if no slot is taken. NULL is accepted. */
void arena_trim(struct arena *arena);

/* More bytes than it has room for is a claim of the shard's that does not hold. */
static inline bool arena_fits(const struct arena_slot *slot, uint64_t bytes)
{
    return bytes <= (uint64_t)slot->count * KV_ARENA_UNIT_BYTES;
}

#endif
