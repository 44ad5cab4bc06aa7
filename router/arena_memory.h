/* router/arena_memory.h -- what an arena's slots lie in: memory with a descriptor, for the shard.
 * Promises: sealed: nobody who has the descriptor can make it shorter, or longer.
 * Tests:    unit/router/test_arena.c. The simulation has a twin (tests/sim/arena.c). */
#ifndef KV_ROUTER_ARENA_MEMORY_H
#define KV_ROUTER_ARENA_MEMORY_H

#include "body_file.h"
#include "kv/limits.h"

/* `*file` is its descriptor, the caller's to free. NULL: the system has none left, or no memory. */
uint8_t *arena_memory_new(struct body_file **file);
/* Its pages go back to the system until they are written to again; what is in them is gone. */
void arena_memory_trim(uint8_t *memory);
void arena_memory_free(uint8_t *memory);

#endif
