/* shard/overlay_index.h -- where a row of a table is, by the hash of its key: open addressing, one probe is one cache line.
 * Does:     keeps a byte of each hash in an array of its own, an eighth of the slots: nearly all that is looked for is not there
 *           (a new key, a new content, the generation before), and the bytes say so from a cache that the slots do not fit in.
 *           Of the slots nothing but the row is kept: its hash is worked out again when they move.
 * Owns:     the slots; what they point to is the caller's.
 * Promises: at most three quarters of the slots are taken. They are in parts that grow one by one, so that no put moves more than
 *           a 64th of the rows. Hashes are seeded by the process (clients choose keys, and shall not choose who collides with
 *           whom). Looking changes nothing.
 * Fails:    never (allocation failure aborts).
 * Tests:    unit/shard/test_overlay.c. */
#ifndef KV_SHARD_OVERLAY_INDEX_H
#define KV_SHARD_OVERLAY_INDEX_H

#include "overlay.h"

#define OVERLAY_PARTS 64u

struct overlay_part {
    struct overlay_row **slots; /* not written where they are free; behind them a tag for each, 0: free */
    uint32_t slot_count;        /* a power of two, or 0 */
    uint32_t count;
};

/* Zero-initialised is empty. */
struct overlay_index {
    struct overlay_part parts[OVERLAY_PARTS];
    size_t count, slot_count; /* of all parts */
};

/* Hashes are overlay_hash of the key.
 * Asks the processor for the memory that a search begins with. */
void overlay_index_fetch(const struct overlay_index *index, uint64_t hash);
/* A row with such a tag, not looked at: one in some hundred is another key's. Or NULL: there is none with this hash. */
const struct overlay_row *overlay_index_guess(const struct overlay_index *index, uint64_t hash);
/* The row of this key, or NULL. */
struct overlay_row *overlay_index_get(const struct overlay_index *index, uint64_t hash, struct kv_slice key);
/* Its key must not be there yet. */
void overlay_index_add(struct overlay_index *index, uint64_t hash, struct overlay_row *row);
/* The row must be there; `by` has the same key. */
void overlay_index_replace(struct overlay_index *index, uint64_t hash, const struct overlay_row *row,
                           struct overlay_row *by);
/* The row must be there. */
void overlay_index_remove(struct overlay_index *index, uint64_t hash, const struct overlay_row *row);
/* All rows, index->count of them, in no order. */
void overlay_index_list(const struct overlay_index *index, const struct overlay_row **rows);
static inline size_t overlay_index_bytes(const struct overlay_index *index)
{
    return index->slot_count * (sizeof(struct overlay_row *) + 1);
}
void overlay_index_free(struct overlay_index *index);

#endif
