/* router/arena.h -- memory that a shard writes pieces of large contents into and the router sends them from: they pass no socket.
 * Does:     makes it, anew for each link to a shard, and keeps book of its slots: one is taken for a FETCH, which names it, and given
 *           back when its bytes have left. The shard keeps no book: a slot is written when a FETCH that names it is handled.
 * Owns:     memory that nobody can make shorter, so that no byte of it can vanish while it is sent (arena_memory.h). It lasts until
 *           the last slot is back, whatever becomes of the link. One thread's, no locks.
 * Promises: what is in a slot when a FETCH is answered stays there until it is given back. A link is a queue: whatever was asked for
 *           before and not waited for was written before. What came over an earlier link has an arena of its own.
 * Limits:   KV_ARENA_SLOTS of KV_ARENA_SLOT_BYTES, of which ARENA_SPARE_SLOTS are not lent: slow clients leave the others a way.
 *           Slots have pages once they were used; those go back to the system when all slots are idle.
 * Tests:    unit/router/test_arena.c, unit/router/test_backend_link.c. */
#ifndef KV_ROUTER_ARENA_H
#define KV_ROUTER_ARENA_H

#include "kv/limits.h"
#include "kv/slice.h"

#define ARENA_SPARE_SLOTS 4u /* as many pieces as are under way over a link, and one that just came */

struct arena;
struct body_file;

/* Of one piece, or of none: zero-initialised. */
struct arena_slot {
    struct arena *arena;
    unsigned number;
};

/* `*file` is for the shard, and the caller's to free. NULL: the system has no descriptor or no memory left. */
struct arena *arena_new(struct body_file **file);
/* Sets NULL, and accepts it. The memory goes with the last slot. */
void arena_free(struct arena **arena);
/* False: none is left. */
bool arena_take(struct arena *arena, struct arena_slot *out);
struct kv_slice arena_peek(const struct arena_slot *slot, size_t bytes);
/* Moves the slot to `out`, for as long as a client takes to read it, unless too many are lent, or `slot` is none: false. */
bool arena_lend(struct arena_slot *slot, struct arena_slot *out);
/* It is none afterwards; none is accepted. */
void arena_give_back(struct arena_slot *slot);
/* The pages go back to the system if no slot is taken. NULL is accepted. */
void arena_trim(struct arena *arena);

#endif
