/* shard/store_filter.h -- what spares the loop most lookups of rows that are not there: a third of its time when all is new.
 * Does:     remembers the rows of `keys` and `objects` in a filter (filter.h), which [applier] fills from the tables in steps
 *           (store_learn), and keeps up to date with each generation.
 * Owns:     up to three filters: the loop's, one that the loop has not taken yet, one under construction.
 * Promises: a row is denied only when LMDB does not have it, or the overlay has it. Rows enter the filter before the transaction
 *           that brings them commits; the loop takes a new filter when it begins to read, as it does before the overlay lets go of a
 *           generation. So whatever the loop's filter may lack by then is still in the overlay, where the loop looks first.
 * Limits:   made only once STORE_FILTER_ABSENT rows were looked up in vain, with room for twice the rows there are, and made anew
 *           when it is full: FILTER_ROW_BITS for each row that it has room for, and both at once while the next one is built.
 * Tests:    unit/shard/test_store_filter.c. */
#ifndef KV_SHARD_STORE_FILTER_H
#define KV_SHARD_STORE_FILTER_H

#include <stdatomic.h>

#include "filter.h"
#include "kv/err.h"
#include "kv/slice.h"

#define STORE_FILTER_ABSENT 4096u     /* a store that is only read never has a filter */
#define STORE_FILTER_ROWS_MIN 65536u  /* room for as many, however few there are: 80 KiB */
#define STORE_FILTER_STEP_ROWS 65536u /* read in one step: some milliseconds, for which a generation may have to wait */
#define STORE_FILTER_KEY_BYTES_MAX 511u /* of a row in either table */

struct store_filter {
    /* loop */
    struct filter *taken; /* what it asks; NULL: nothing is known */
    uint64_t denied;      /* rows that it said are not there */
    /* both */
    _Atomic(struct filter *) fresh; /* from [applier] to the loop */
    _Atomic uint64_t absent;        /* rows that LMDB was asked for in vain */
    /* [applier] */
    struct filter *newest;   /* the loop's, or the one that it will take */
    struct filter *building; /* until both tables were read, */
    unsigned at_table;       /* of which this is the one, */
    size_t from_bytes;       /* and this the row that was read last */
    uint8_t from[STORE_FILTER_KEY_BYTES_MAX];
};

/* Which of the two tables. */
enum store_filter_table { STORE_FILTER_KEYS, STORE_FILTER_OBJECTS, STORE_FILTER_TABLES };

/* Loop: before the snapshot is renewed. */
void store_filter_take(struct store_filter *filter);
/* Loop: true: the row is surely not in LMDB, or in the overlay. Counted. */
bool store_filter_lacks(struct store_filter *filter, enum store_filter_table table, struct kv_slice key);
/* Loop: leaves in `keys` those that may be in LMDB, and returns how many. Not counted: each will be asked for. */
size_t store_filter_sift(const struct store_filter *filter, enum store_filter_table table, struct kv_slice *keys,
                         size_t count);
/* Loop: LMDB was asked, and said this. Returns it. */
enum kv_err store_filter_asked(struct store_filter *filter, enum kv_err err);

/* [applier] True: LMDB does not have the row, as far as this transaction has not put it there. */
bool store_filter_is_new(const struct store_filter *filter, enum store_filter_table table, struct kv_slice key);
/* [applier] Before the transaction that brings the row commits. */
void store_filter_add(struct store_filter *filter, enum store_filter_table table, struct kv_slice key);

/* Both threads are through. */
void store_filter_clear(struct store_filter *filter);

#endif
