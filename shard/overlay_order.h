/* shard/overlay_order.h -- the order of one generation's keys, made when somebody walks them, and piece by piece: a skip list.
 * Does:     new rows wait in a list, at the price of one store. Who wants to walk has some thousand steps done at a time, and comes
 *           back until all rows are in order: the loop serves others in between, and who never lists pays nothing. First all that
 *           wait are sorted in runs, then the runs are merged into the list: rows that come in order find their place at once,
 *           where each alone would have to go down the list from the top, a cache miss or two for every step.
 * Owns:     the links, which lie in front of their rows: one for most, 1.33 on average; and the runs, 8 bytes a row until they are
 *           merged. Rows belong to the overlay, and are never taken out: one that is `gone` is passed over.
 * Threads:  links are the loop's alone; the rows behind them are only read.
 * Tests:    unit/shard/test_overlay.c. */
#ifndef KV_SHARD_OVERLAY_ORDER_H
#define KV_SHARD_OVERLAY_ORDER_H

#include "overlay.h"

#define OVERLAY_LEVELS 12u /* each level links a fourth of the one below: enough for 16 million rows */

struct overlay_run {
    const struct overlay_row **rows; /* sorted */
    size_t at, count;
};

/* Zero-initialised is empty. */
struct overlay_order {
    struct overlay_row *first[OVERLAY_LEVELS];
    struct overlay_row *waiting; /* linked by their lowest link */
    size_t waiting_count;
    struct overlay_run *runs; /* while they are merged a heap, the one with the smallest key first */
    size_t run_count;
    bool merging;
    /* The last row of each level in front of what is merged next; NULL: none is. */
    const struct overlay_row *at[OVERLAY_LEVELS];
};

/* How many links a row has, 1 to OVERLAY_LEVELS; from its hash, since that nobody can choose. */
static inline unsigned overlay_order_levels(uint64_t hash)
{
    uint64_t bits = hash >> 32 | (uint64_t)1 << 2 * (OVERLAY_LEVELS - 1);
    return 1 + (unsigned)__builtin_ctzll(bits) / 2;
}

void overlay_order_add(struct overlay_order *order, struct overlay_row *row);
/* As overlay_order; all keys begin with the same `shared` bytes. */
bool overlay_order_some(struct overlay_order *order, size_t steps_max, size_t shared);
/* All must be in order. */
const struct overlay_row *overlay_order_seek(const struct overlay_order *order, struct kv_slice from);
const struct overlay_row *overlay_order_next(const struct overlay_row *row);
/* The runs. */
void overlay_order_free(struct overlay_order *order);

#endif
