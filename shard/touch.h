/* shard/touch.h -- lookups that came together wait for memory together.
 * Why:      with ten million keys the rows that a GET looks at, and the pages on the way to them, are in no cache of the processor: two
 *           ways down a tree are two dozen waits for memory, each of which must end before the next begins, and were two thirds of
 *           a shard's time. Between lookups there is no such order.
 * Does:     goes the ways of a whole group at once, one comparison of each in turn, and asks for what the next comparison will need
 *           before it turns to the others. LMDB, asked for the same rows right afterwards, finds all of it near.
 * Knows:    LMDB's pages, as every 0.9 writes them: its file format does not change within that.
 * Promises: changes nothing. Reads within the pages of the map only, whatever is in them, and no more of them than the tree is deep.
 * Tests:    unit/shard/test_touch.c. */
#ifndef KV_SHARD_TOUCH_H
#define KV_SHARD_TOUCH_H

#include <stdint.h>

#include "kv/slice.h"

#define LMDB_PAGE_BYTES 4096u /* of the file, and of heap for each that a transaction changes */
#define TOUCH_ROWS_MAX 32u    /* at a time: more would drive each other out of the first cache */

/* A table of a snapshot. */
struct touch_tree {
    const uint8_t *map;
    uint64_t page_count; /* in the map */
    uint64_t root;       /* number of a page */
    unsigned depth;
};

/* Looks for the rows of `count` keys; `rows` receives a peek of each, or nothing. */
void touch_rows(const struct touch_tree *tree, const struct kv_slice *keys, size_t count, struct kv_slice *rows);

#endif
