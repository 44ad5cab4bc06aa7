/* tests/sim/heap.h -- memory that dies with its process: every malloc of the code under test is booked on the heap of the
 * simulated process that runs, and a crash gives all of it back at once, as the kernel would.
 * Does:     stands in for malloc, calloc, realloc and free (ld --wrap). A block remembers its heap, so anybody may free it.
 * Promises: whatever a dead process kept is gone: with ASan a late use of it is found. `count` tells leaks.
 * Tests:    the simulation itself. */
#ifndef SIM_HEAP_H
#define SIM_HEAP_H

#include <stddef.h>

struct heap_block {
    struct heap_block *prev, *next;
    struct heap *heap;
    size_t bytes;
};

struct heap {
    struct heap_block blocks; /* ring; linked to itself by heap_init */
    size_t count;
};

void heap_init(struct heap *heap);
/* From now on malloc takes from this heap; gives the one before. */
struct heap *heap_enter(struct heap *heap);
/* Frees every block that is left. */
void heap_free_all(struct heap *heap);

#endif
