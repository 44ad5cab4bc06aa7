/* shard/list.h -- one bounded page of keys: both overlay generations and the applied rows, merged in byte order.
 * A page costs what it returns: shared prefixes behind a delimiter are skipped by seeking, not by reading.
 * Deleted rows that wait in memory are read, though: a page passes over at most LIST_STEPS_MAX of them and then says where to
 * go on, so that no turn of the loop is long.
 * Tests: unit/shard/test_list.c, system/test_walk.c, system/test_scale.c, sim/. */
#ifndef KV_SHARD_LIST_H
#define KV_SHARD_LIST_H

#include "ledger.h"

#ifndef LIST_STEPS_MAX /* the simulation lowers it */
#define LIST_STEPS_MAX 4096u
#endif
/* Nor does a page wait until all keys that came since the last listing are in order, which may be hundreds of thousands. It takes so many
 * steps towards that (overlay_order) in each generation and says, with no entry, that it has to be asked for again. */
#ifndef LIST_ORDER_MAX /* the simulation lowers it */
#define LIST_ORDER_MAX 4096u
#endif

/* Appends entries of PAGE and their count, and gives the position that must be durable before they may be shown. `resume`
 * receives the key to go on with when LIST_STEPS_MAX or LIST_ORDER_MAX was met, and stays empty otherwise. */
uint64_t list_page(struct ledger *ledger, const struct kv_msg_list *list, struct kv_buf *entries, size_t *count,
                   bool *more, struct kv_buf *resume);

#endif
