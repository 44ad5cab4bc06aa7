/* shard/overlay.h -- the rows of one generation that are not yet in LMDB: a map in memory, whose keys can be put in order.
 * Does:     keeps for (table, key) the newest value or a tombstone, with the journal position that made it.
 * Owns:     copies of keys and values. Not thread-safe; a frozen generation is read-only: the loop may get any row, put its
 *           keys in order and walk them while the applier uses overlay_sorted and overlay_unsorted.
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

/* The head of a row: key and value lie right behind it, so that who finds a row has both in the same cache lines or the next. */
struct overlay_row {
    uint64_t position; /* journal record that must be durable before the row may be shown; 0 = none */
    uint32_t value_bytes;
    uint16_t key_bytes;
    bool tombstone : 1;
    bool gone : 1;      /* the rest is overlay.c's: forgotten, or moved: walks pass over it; */
    uint8_t levels : 4; /* links of its order that lie in front of it; */
    uint8_t spare;      /* what its block has to spare, in units of the arena */
};

static inline struct kv_slice overlay_key(const struct overlay_row *row)
{
    return kv_slice(row + 1, row->key_bytes);
}

/* Empty in a tombstone. */
static inline struct kv_slice overlay_value(const struct overlay_row *row)
{
    return kv_slice((const uint8_t *)(row + 1) + row->key_bytes, row->value_bytes);
}

struct overlay;

/* Of a key, in whatever overlay and table of this process. */
uint64_t overlay_hash(struct kv_slice key);

struct overlay *overlay_new(void);
void overlay_free(struct overlay **overlay);

/* The row of exactly this key or NULL; peek: valid until the next change of that row. */
const struct overlay_row *overlay_get(const struct overlay *overlay, enum overlay_table table, struct kv_slice key);
/* Before a look-up or a change, if there is something else to do meanwhile: the first asks the processor for the memory that it begins
 * with; the second, a while later, for the row's. False: there is no row of that hash; true: most likely. */
void overlay_fetch_place(const struct overlay *overlay, enum overlay_table table, uint64_t hash);
bool overlay_fetch_row(const struct overlay *overlay, enum overlay_table table, uint64_t hash);
/* Sets the row (copies key and value). */
void overlay_put(struct overlay *overlay, enum overlay_table table, struct kv_slice key, struct kv_slice value,
                 uint64_t position);
/* Replaces the row by a tombstone, which the applier turns into a delete. */
void overlay_tombstone(struct overlay *overlay, enum overlay_table table, struct kv_slice key, uint64_t position);
/* Takes the row out without a trace: for what was put in this very generation and never reached another. */
void overlay_forget(struct overlay *overlay, enum overlay_table table, struct kv_slice key);

/* Takes about `steps_max` steps towards all keys in order: some three for each that came since, which cost a tenth of a microsecond each,
 * and up to some dozen where few come between many. True: all are, and may be walked until the next change. */
bool overlay_order(struct overlay *overlay, size_t steps_max);
/* The first row of OVERLAY_KEYS with a key >= `from` (tombstones included), or NULL. */
const struct overlay_row *overlay_seek(const struct overlay *overlay, struct kv_slice from);
/* The row behind `row` in key order, or NULL. */
const struct overlay_row *overlay_next(const struct overlay_row *row);

/* All rows of a table in key order, malloc'ed; valid until the next change. Faster than a walk, but for all rows only. */
const struct overlay_row **overlay_sorted(const struct overlay *overlay, enum overlay_table table, size_t *count);
/* The same in no order. */
const struct overlay_row **overlay_unsorted(const struct overlay *overlay, enum overlay_table table, size_t *count);

/* Gives back the memory that freed overlays left for the next ones. */
void overlay_trim(void);
/* Memory that rows, keys and values take, with an estimate of the allocator's share; and how many rows. */
size_t overlay_bytes(const struct overlay *overlay);
size_t overlay_rows(const struct overlay *overlay);
size_t overlay_rows_of(const struct overlay *overlay, enum overlay_table table);

#endif
