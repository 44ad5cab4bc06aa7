/* router/cache_entry.h -- how an entry of the cache lies in its block of the ring: the struct, then the key, the content type, the stored
 * form and, unless it is part of that, the content. cache.c alone includes it.
 * Tests: unit/router/test_cache.c. */
#ifndef KV_ROUTER_CACHE_ENTRY_H
#define KV_ROUTER_CACHE_ENTRY_H

#include "cache.h"

#define ENTRY_UNIT 64u /* blocks begin at cache lines */

static inline struct kv_slice entry_key(const struct cache_entry *entry)
{
    return kv_slice(entry + 1, entry->inside.key_bytes);
}

/* Of the block that these need. */
uint64_t entry_bytes(struct kv_slice key, const struct kv_row *row, const struct kv_object *object,
                     struct kv_slice content);
/* Copies them into such a block, all but `inside`. */
void entry_fill(struct cache_entry *entry, struct kv_slice key, const struct kv_row *row,
                const struct kv_object *object, struct kv_slice content);
/* After the block was copied from `from`: what points into it points into the copy. */
void entry_moved(struct cache_entry *entry, const struct cache_entry *from);

#endif
