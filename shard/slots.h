/* shard/slots.h -- memory of a router that contents and pieces of them are written into: they leave without a socket.
 * Does:     maps what came with ARENA: KV_ARENA_UNITS of KV_ARENA_UNIT_BYTES, which the router made, hands out in its OPENs and
 *           FETCHes, and reads from when OBJECT or PIECE says so.
 * Promises: a router that dies, or is taken over, does no harm here: the mapping lasts, and nobody can make it shorter than it is
 *           (F_SEAL_SHRINK), so that no write ever meets a page that is gone.
 * Tests:    unit/shard/test_slots.c, unit/shard/test_serve_arena.c. */
#ifndef KV_SHARD_SLOTS_H
#define KV_SHARD_SLOTS_H

#include <stdint.h>

#include "kv/err.h"
#include "kv/limits.h"

/* The descriptor stays the caller's. KV_INVALID: it has another size, or is not sealed. KV_NO_SPACE, with errno: it cannot be mapped. */
enum kv_err slots_map(int fd, uint8_t **out);
/* Sets NULL, and accepts it. */
void slots_unmap(uint8_t **slots);

/* The slot that begins with this unit. */
static inline uint8_t *slots_at(uint8_t *slots, uint64_t first)
{
    return slots + first * KV_ARENA_UNIT_BYTES;
}

#endif
