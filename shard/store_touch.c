/* shard/store_touch.c -- brings rows near that the loop is about to look up (touch.h).
 * Does:     finds where a table lies in the snapshot; contents of keys that are on this shard follow their keys.
 * Limits:   tables below STORE_TOUCH_BYTES_MIN are in the processor's caches anyway.
 * Tests:    unit/shard/test_touch.c. */
#include "kv/log.h"
#include "kv/placement.h"
#include "rows.h"
#include "store_internal.h"
#include "touch.h"

/* How many of them are there. `rows` receives those, for who wants them. */
static size_t touch_table(struct store *store, enum store_table table, struct kv_slice *keys, size_t count,
                          struct kv_slice *rows)
{
    enum store_filter_table filter = table == STORE_KEYS ? STORE_FILTER_KEYS : STORE_FILTER_OBJECTS;
    struct kv_slice found[TOUCH_ROWS_MAX];
    struct touch_tree tree;
    uint64_t pages;
    size_t found_count = 0;
    kv_assert(store->reading && count <= TOUCH_ROWS_MAX);
    if (count < 2 || txn_tree(store->reader, table, &tree, &pages) != KV_OK ||
        pages * LMDB_PAGE_BYTES < STORE_TOUCH_BYTES_MIN)
        return 0;
    count = store_filter_sift(&store->filter, filter, keys, count);
    touch_rows(&tree, keys, count, found);
    for (size_t i = 0; i < count; i++) {
        if (found[i].bytes > 0)
            rows[found_count++] = found[i];
    }
    return found_count;
}

size_t store_touch_objects(struct store *store, struct kv_slice *hashes, size_t count)
{
    struct kv_slice rows[TOUCH_ROWS_MAX];
    return touch_table(store, STORE_OBJECTS, hashes, count, rows);
}

size_t store_touch_keys(struct store *store, struct kv_slice *keys, size_t count)
{
    struct kv_slice rows[TOUCH_ROWS_MAX];
    return touch_table(store, STORE_KEYS, keys, count, rows);
}

size_t store_touch_reads(struct store *store, struct kv_slice *keys, size_t count)
{
    struct kv_slice rows[TOUCH_ROWS_MAX], contents[TOUCH_ROWS_MAX];
    struct kv_hash hashes[TOUCH_ROWS_MAX];
    size_t found = touch_table(store, STORE_KEYS, keys, count, rows), here = 0;
    for (size_t i = 0; i < found; i++) {
        struct kv_row row;
        if (row_decode_key(rows[i], &row) != KV_OK ||
            kv_shard_of(kv_hash_slice(&row.hash), (unsigned)store->identity.shard_count) != store->identity.shard_index)
            continue;
        hashes[here] = row.hash;
        contents[here] = kv_hash_slice(&hashes[here]);
        here++;
    }
    return found + store_touch_objects(store, contents, here);
}
