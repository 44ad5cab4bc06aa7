/* router/plan_table.h -- the contents that a plan mentions, each once, found by its hash: open addressing over an array.
 * Owns:     nothing: array and slots are part of the plan's one block of memory (plan.c).
 * Promises: an index stays what it is until plan_table_start_over, that of a given content for good.
 * Tests:    unit/router/test_plan.c. */
#ifndef KV_ROUTER_PLAN_TABLE_H
#define KV_ROUTER_PLAN_TABLE_H

#include "plan.h"

struct plan_table {
    struct plan_content *list; /* first the given ones, */
    size_t count, given;       /* of which there are so many */
    uint32_t *slots;           /* index into the list plus one; 0 is free */
    size_t slot_count;
};

/* How many slots as many contents need: a power of two, and half of them stay free. */
size_t plan_table_slots(size_t contents_max);
/* Before the first use; sets neither `list`, `slots` nor `slot_count`. */
void plan_table_clear(struct plan_table *table);
/* Index of the content, which is added if it is not there. */
size_t plan_table_get(struct plan_table *table, const struct kv_hash *hash, uint64_t size);
/* Back to the given contents and where they are staged; what an evaluation found out is gone. */
void plan_table_start_over(struct plan_table *table);

#endif
