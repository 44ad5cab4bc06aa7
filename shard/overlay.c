/* shard/overlay.c -- rows in an arena, found by a hash index per table.
 * Does:     keeps each row as one block: links of its order (overlay_order.c, keys only), head, key, value. Sorts a whole table for the
 *           applier (overlay_sort.c).
 * Owns:     one arena (overlay_arena.c), one index per table (overlay_index.c) and the order of keys: overlay_free releases some
 *           dozen chunks instead of 100,000 rows.
 * Promises: a read changes nothing, so loop and applier may read a frozen generation at once. A block that its row left is used
 *           again, but for those of keys, which their order may still pass by: a key's row stays where it is as long as its new
 *           value fits. overlay_bytes counts what arena and index have taken at their highest, which is what the memory is.
 * Fails:    never; out of memory aborts.
 * Tests:    unit/shard/test_overlay.c. */
#include "overlay.h"

#include <stdlib.h>

#include "kv/limits.h"
#include "kv/log.h"
#include "overlay_arena.h"
#include "overlay_index.h"
#include "overlay_order.h"
#include "overlay_sort.h"

#define LINE_BYTES 64u

struct overlay {
    struct overlay_index indexes[OVERLAY_TABLES];
    struct overlay_arena arena;
    struct overlay_order order;
    size_t shared_bytes; /* that all keys of OVERLAY_KEYS begin with: contents and ids share nothing */
    uint8_t shared[KV_KEY_BYTES_MAX];
};

/* ---- life ------------------------------------------------------------------------------------------------------ */

struct overlay *overlay_new(void)
{
    return kv_alloc_zero(1, sizeof(struct overlay));
}

void overlay_free(struct overlay **overlay)
{
    if (!*overlay)
        return;
    overlay_arena_free(&(*overlay)->arena);
    for (size_t table = 0; table < OVERLAY_TABLES; table++)
        overlay_index_free(&(*overlay)->indexes[table]);
    overlay_order_free(&(*overlay)->order);
    free(*overlay);
    *overlay = NULL;
}

/* ---- blocks ---------------------------------------------------------------------------------------------------- */

static size_t block_bytes(const struct overlay_row *row, size_t value_bytes)
{
    return row->levels * sizeof(struct overlay_row *) + sizeof *row + row->key_bytes + value_bytes;
}

/* The row has a value of that size where it is, if that fits: all but keys give back a block that is too large, too. */
static bool resize(struct overlay_row *row, size_t value_bytes)
{
    int64_t has = (int64_t)overlay_arena_rounded(block_bytes(row, row->value_bytes)) / OVERLAY_ARENA_UNIT + row->spare;
    int64_t spare = has - (int64_t)overlay_arena_rounded(block_bytes(row, value_bytes)) / OVERLAY_ARENA_UNIT;
    if (spare < 0 || spare > (row->levels > 0 ? UINT8_MAX : 0))
        return false;
    row->spare = (uint8_t)spare;
    row->value_bytes = (uint32_t)value_bytes;
    return true;
}

static void release(struct overlay *overlay, struct overlay_row *row)
{
    if (row->levels > 0)
        row->gone = true;
    else
        overlay_arena_give(&overlay->arena, row, block_bytes(row, row->value_bytes));
}

/* What all of them begin with. */
static void share(struct overlay *overlay, struct kv_slice key)
{
    size_t shared = 0;
    if (overlay->indexes[OVERLAY_KEYS].count == 0) {
        overlay->shared_bytes = key.bytes < sizeof overlay->shared ? key.bytes : sizeof overlay->shared;
        memcpy(overlay->shared, key.data, overlay->shared_bytes);
    }
    while (shared < overlay->shared_bytes && shared < key.bytes && overlay->shared[shared] == key.data[shared])
        shared++;
    overlay->shared_bytes = shared;
}

/* A row with room for the value, which is not set. */
static struct overlay_row *make(struct overlay *overlay, enum overlay_table table, struct kv_slice key, uint64_t hash,
                                size_t value_bytes)
{
    kv_assert(key.bytes <= UINT16_MAX && value_bytes <= UINT32_MAX);
    struct overlay_row head = {.key_bytes = (uint16_t)key.bytes, .value_bytes = (uint32_t)value_bytes};
    head.levels = table == OVERLAY_KEYS ? overlay_order_levels(hash) & 0xf : 0;
    struct overlay_row **links = overlay_arena_take(&overlay->arena, block_bytes(&head, value_bytes));
    struct overlay_row *row = (struct overlay_row *)(void *)(links + head.levels);
    *row = head;
    if (key.bytes > 0)
        memcpy(row + 1, key.data, key.bytes);
    if (table == OVERLAY_KEYS)
        overlay_order_add(&overlay->order, row);
    return row;
}

/* ---- the map --------------------------------------------------------------------------------------------------- */

const struct overlay_row *overlay_get(const struct overlay *overlay, enum overlay_table table, struct kv_slice key)
{
    return overlay_index_get(&overlay->indexes[table], overlay_hash(key), key);
}

void overlay_fetch_place(const struct overlay *overlay, enum overlay_table table, uint64_t hash)
{
    overlay_index_fetch(&overlay->indexes[table], hash);
}

bool overlay_fetch_row(const struct overlay *overlay, enum overlay_table table, uint64_t hash)
{
    const struct overlay_row *row = overlay_index_guess(&overlay->indexes[table], hash);
    if (row == NULL)
        return false;
    __builtin_prefetch(row);
    __builtin_prefetch((const uint8_t *)row + LINE_BYTES);
    return true;
}

static struct overlay_row *insert(struct overlay *overlay, enum overlay_table table, struct kv_slice key, uint64_t hash,
                                  size_t value_bytes)
{
    if (table == OVERLAY_KEYS)
        share(overlay, key);
    struct overlay_row *row = make(overlay, table, key, hash, value_bytes);
    overlay_index_add(&overlay->indexes[table], hash, row);
    return row;
}

static void set_value(struct overlay_row *row, struct kv_slice value)
{
    if (value.bytes > 0)
        memmove((uint8_t *)(row + 1) + row->key_bytes, value.data, value.bytes);
}

/* The new value may borrow from the old one: it is copied before the old block is given back. */
static void set(struct overlay *overlay, enum overlay_table table, struct kv_slice key, struct kv_slice value,
                bool tombstone, uint64_t position)
{
    struct overlay_index *index = &overlay->indexes[table];
    uint64_t hash = overlay_hash(key);
    struct overlay_row *row = overlay_index_get(index, hash, key), *old = NULL;
    if (row == NULL) {
        row = insert(overlay, table, key, hash, value.bytes);
    } else if (!resize(row, value.bytes)) {
        old = row;
        row = make(overlay, table, key, hash, value.bytes);
        overlay_index_replace(index, hash, old, row);
    }
    set_value(row, value);
    row->tombstone = tombstone;
    row->position = position;
    if (old != NULL)
        release(overlay, old);
}

void overlay_put(struct overlay *overlay, enum overlay_table table, struct kv_slice key, struct kv_slice value,
                 uint64_t position)
{
    set(overlay, table, key, value, false, position);
}

void overlay_tombstone(struct overlay *overlay, enum overlay_table table, struct kv_slice key, uint64_t position)
{
    set(overlay, table, key, kv_slice(NULL, 0), true, position);
}

void overlay_forget(struct overlay *overlay, enum overlay_table table, struct kv_slice key)
{
    uint64_t hash = overlay_hash(key);
    struct overlay_row *row = overlay_index_get(&overlay->indexes[table], hash, key);
    if (!row)
        return;
    overlay_index_remove(&overlay->indexes[table], hash, row);
    release(overlay, row);
}

/* ---- in order, and all of them ----------------------------------------------------------------------------------- */

bool overlay_order(struct overlay *overlay, size_t steps_max)
{
    return overlay_order_some(&overlay->order, steps_max, overlay->shared_bytes);
}

const struct overlay_row *overlay_seek(const struct overlay *overlay, struct kv_slice from)
{
    return overlay_order_seek(&overlay->order, from);
}

const struct overlay_row *overlay_next(const struct overlay_row *row)
{
    return overlay_order_next(row);
}

const struct overlay_row **overlay_unsorted(const struct overlay *overlay, enum overlay_table table, size_t *count)
{
    const struct overlay_index *index = &overlay->indexes[table];
    const struct overlay_row **rows = kv_alloc(index->count * sizeof *rows);
    overlay_index_list(index, rows);
    *count = index->count;
    return rows;
}

const struct overlay_row **overlay_sorted(const struct overlay *overlay, enum overlay_table table, size_t *count)
{
    const struct overlay_row **rows = overlay_unsorted(overlay, table, count);
    overlay_sort(rows, *count, table == OVERLAY_KEYS ? overlay->shared_bytes : 0);
    return rows;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

void overlay_trim(void)
{
    overlay_arena_trim();
}

size_t overlay_bytes(const struct overlay *overlay)
{
    size_t bytes = overlay->arena.bytes;
    for (size_t table = 0; table < OVERLAY_TABLES; table++)
        bytes += overlay_index_bytes(&overlay->indexes[table]);
    return bytes;
}

size_t overlay_rows(const struct overlay *overlay)
{
    size_t rows = 0;
    for (size_t table = 0; table < OVERLAY_TABLES; table++)
        rows += overlay->indexes[table].count;
    return rows;
}

size_t overlay_rows_of(const struct overlay *overlay, enum overlay_table table)
{
    return overlay->indexes[table].count;
}
