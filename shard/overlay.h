/* shard/overlay.h -- the rows of one generation that are not yet in LMDB: an ordered map in memory.
 * Does:     keeps for (table, key) the newest value or a tombstone, with the journal position that made it.
 * Owns:     copies of keys and values. Not thread-safe; a frozen generation is read-only: the loop may get any row and walk the
 *           keys while the applier uses overlay_sorted. The first walk of a table orders it: walks belong to one thread.
 * Fails:    never (allocation failure aborts). The bound is the caller's: it looks at overlay_bytes.
 * Tests:    unit/shard/test_overlay.c (against a sorted array). */
#ifndef KV_SHARD_OVERLAY_H
#define KV_SHARD_OVERLAY_H

#include "kv/buf.h"

enum overlay_table {
    OVERLAY_KEYS,    /* key bytes -> key row (shard/rows.h) */
    OVERLAY_OBJECTS, /* SHA-256 -> object row */
    OVERLAY_BLOBS, /* object id, 8 bytes big endian -> complete stored form (at most KV_INLINE_BYTES_MAX, too large for its row) */
    OVERLAY_TABLES
};

/* Keys that wait to be put in order by the first walk, which keeps the loop from everything else for half a microsecond each. What is
 * more is ordered as it comes. */
#ifndef OVERLAY_UNORDERED_MAX /* the simulation has fewer */
#define OVERLAY_UNORDERED_MAX ((size_t)256 * 1024)
#endif

struct overlay_row {
    struct kv_slice key;
    struct kv_slice value; /* meaningless in a tombstone */
    bool tombstone;
    uint64_t position; /* journal record that must be durable before the row may be shown; 0 = none */
};

struct overlay;

struct overlay *overlay_new(void);
/* Keeps in order from the first row on what was walked in the one before: who lists once lists again. */
struct overlay *overlay_new_after(const struct overlay *before);
void overlay_free(struct overlay **overlay);

/* The row of exactly this key or NULL; peek: valid until the next change of that row. */
const struct overlay_row *overlay_get(const struct overlay *overlay, enum overlay_table table, struct kv_slice key);
/* Sets the row (copies key and value). */
void overlay_put(struct overlay *overlay, enum overlay_table table, struct kv_slice key, struct kv_slice value,
                 uint64_t position);
/* Replaces the row by a tombstone, which the applier turns into a delete. */
void overlay_tombstone(struct overlay *overlay, enum overlay_table table, struct kv_slice key, uint64_t position);
/* Takes the row out without a trace: for what was put in this very generation and never reached another. */
void overlay_forget(struct overlay *overlay, enum overlay_table table, struct kv_slice key);
/* The first row with a key >= `from` (tombstones included), or NULL. */
const struct overlay_row *overlay_seek(const struct overlay *overlay, enum overlay_table table, struct kv_slice from);
/* The row behind `row` in key order, or NULL. */
const struct overlay_row *overlay_next(const struct overlay *overlay, enum overlay_table table,
                                       const struct overlay_row *row);
/* All rows of a table in key order, malloc'ed; valid until the next change. Faster than a walk, but for all rows only. */
const struct overlay_row **overlay_sorted(const struct overlay *overlay, enum overlay_table table, size_t *count);
/* Gives back the memory that freed overlays left for the next ones. */
void overlay_trim(void);
/* Memory that rows, keys and values take, with an estimate of the allocator's share; and how many rows. */
size_t overlay_bytes(const struct overlay *overlay);
size_t overlay_rows(const struct overlay *overlay);
size_t overlay_rows_of(const struct overlay *overlay, enum overlay_table table);

#endif
