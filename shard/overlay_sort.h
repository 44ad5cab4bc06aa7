/* shard/overlay_sort.h -- rows in the order of their keys: a radix sort of 8 bytes behind what all keys share, then comparisons where
 * those are equal. Tests: unit/shard/test_overlay.c. */
#ifndef KV_SHARD_OVERLAY_SORT_H
#define KV_SHARD_OVERLAY_SORT_H

#include "overlay.h"

/* `shared`: bytes that all keys begin with. */
void overlay_sort(const struct overlay_row **rows, size_t count, size_t shared);

#endif
