/* shard/filter.h -- a set of rows that can say "surely not in it": a Bloom filter of one 64-bit word per row asked for.
 * Does:     four bits of one word for each row, so that adding and asking touch one cache line.
 * Promises: a row that was added is never denied. Rows never leave: what was deleted is thought to be there until the next
 *           filter is built (store_filter.c). At its capacity about 5 of 100 absent rows are not recognised, at half of it 1 of 200.
 * Threads:  one adds, any ask; who asks sees what was added before it heard of it.
 * Limits:   FILTER_ROW_BITS of memory per row of its capacity.
 * Tests:    unit/shard/test_filter.c. */
#ifndef KV_SHARD_FILTER_H
#define KV_SHARD_FILTER_H

#include <stdbool.h>
#include <stdint.h>

#define FILTER_ROW_BITS 10u

struct filter;

struct filter *filter_new(uint64_t capacity_rows);
void filter_free(struct filter **filter);
/* `hash`: 64 well mixed bits of the row's key. */
void filter_add(struct filter *filter, uint64_t hash);
/* True: no row with this hash was added. */
bool filter_lacks(const struct filter *filter, uint64_t hash);
/* It will be asked for: brings what the answer needs near. */
void filter_fetch(const struct filter *filter, uint64_t hash);
/* [who adds] More rows than it was made for: time for another one. */
bool filter_is_full(const struct filter *filter);

#endif
