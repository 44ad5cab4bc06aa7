/* router/huge.h -- zeroed memory for large tables, in huge pages where the kernel has them: a random look into megabytes of small
 * pages waits longer for page tables than for the memory.
 * Untouched it takes no memory. Tests: unit/router/test_cache.c. */
#ifndef KV_ROUTER_HUGE_H
#define KV_ROUTER_HUGE_H

#include <stddef.h>

#define HUGE_PAGE_BYTES ((size_t)2 << 20)

/* Begins at a huge page if it is as large as one. NULL: there is none. */
void *huge_map(size_t bytes);
/* What lies within is not wanted any more, and is zeros from now on or what it was: whole small pages leave. */
void huge_leave(void *memory, size_t bytes);
/* NULL is accepted. */
void huge_unmap(void *memory, size_t bytes);

#endif
