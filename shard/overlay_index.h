/* shard/overlay_index.h -- where a row is, by the hash of its table and key: open addressing, one probe is one cache line.
 * Does:     keeps a byte of each hash in an array of its own, a sixteenth of the slots: nearly all that is looked for is not there
 *           (a new key, a new content, the generation before), and the bytes say so from a cache that the slots do not fit in.
 * Owns:     the slots; what they point to is the caller's.
 * Promises: at most half of the slots are taken, hashes are seeded by the process (clients choose keys, and shall not choose
 *           who collides with whom). Looking changes nothing.
 * Fails:    never (allocation failure aborts).
 * Tests:    unit/shard/test_overlay.c. */
#ifndef KV_SHARD_OVERLAY_INDEX_H
#define KV_SHARD_OVERLAY_INDEX_H

#include "kv/buf.h"

struct overlay_slot {
    uint64_t hash;
    void *entry;
};

/* Zero-initialised is empty. */
struct overlay_index {
    uint8_t *tags;              /* 0: free */
    struct overlay_slot *slots; /* not written where they are free */
    size_t slot_count;          /* a power of two, or 0 */
    size_t count;
};

/* `table`: 0 to 3. */
uint64_t overlay_index_hash(unsigned table, struct kv_slice key);
/* The table that a hash was made for: who looks through all slots need not look at other tables' entries. */
static inline unsigned overlay_index_table(uint64_t hash)
{
    return (unsigned)(hash >> 55) & 3;
}
/* The entry of this hash for which `is_wanted` says so, or NULL. */
void *overlay_index_get(const struct overlay_index *index, uint64_t hash,
                        bool (*is_wanted)(const void *wanted, const void *entry), const void *wanted);
/* The entry must not be there yet. */
void overlay_index_add(struct overlay_index *index, uint64_t hash, void *entry);
/* The entry must be there. */
void overlay_index_remove(struct overlay_index *index, uint64_t hash, const void *entry);
static inline size_t overlay_index_bytes(const struct overlay_index *index)
{
    return index->slot_count * (sizeof(struct overlay_slot) + 1);
}
void overlay_index_free(struct overlay_index *index);

#endif
