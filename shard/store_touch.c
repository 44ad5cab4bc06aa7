/* shard/store_touch.c -- brings rows near that the loop is about to look up (touch.h).
 * Does:     finds where a table lies in the snapshot; contents of keys that are on this shard follow their keys.
 * Limits:   tables below STORE_TOUCH_BYTES_MIN are in the processor's caches anyway.
 * Tests:    unit/shard/test_touch.c. */
#include "kv/log.h"
#include "kv/placement.h"
#include "rows.h"
#include "store_internal.h"
#include "touch.h"

/* How many of them are there. */
static size_t touch_table(struct store *store, enum store_table table, const struct kv_slice *keys, size_t count,
                          struct kv_slice *rows)
{
    struct touch_tree tree;
    uint64_t pages, found = 0;
    kv_assert(store->reading);
    if (count < 2 || txn_tree(store->reader, table, &tree, &pages) != KV_OK ||
        pages * TOUCH_PAGE_BYTES < STORE_TOUCH_BYTES_MIN)
        return 0;
    touch_rows(&tree, keys, count, rows);
    for (size_t i = 0; i < count; i++)
        found += rows[i].bytes > 0;
    return found;
}

size_t store_touch_objects(struct store *store, const struct kv_hash *hashes, size_t count)
{
    struct kv_slice keys[TOUCH_ROWS_MAX], rows[TOUCH_ROWS_MAX];
    kv_assert(count <= TOUCH_ROWS_MAX);
    for (size_t i = 0; i < count; i++)
        keys[i] = kv_hash_slice(&hashes[i]);
    return touch_table(store, STORE_OBJECTS, keys, count, rows);
}

size_t store_touch_keys(struct store *store, const struct kv_slice *keys, size_t count)
{
    struct kv_slice rows[TOUCH_ROWS_MAX] = {{0}};
    struct kv_hash hashes[TOUCH_ROWS_MAX];
    size_t found = touch_table(store, STORE_KEYS, keys, count, rows), here = 0;
    for (size_t i = 0; i < count; i++) {
        struct kv_row row;
        if (row_decode_key(rows[i], &row) == KV_OK &&
            kv_shard_of(kv_hash_slice(&row.hash), (unsigned)store->identity.shard_count) == store->identity.shard_index)
            hashes[here++] = row.hash;
    }
    return found + store_touch_objects(store, hashes, here);
}
