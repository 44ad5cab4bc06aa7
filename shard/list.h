/* shard/list.h -- one bounded page of keys: both overlay generations and the applied rows, merged in byte order.
 * A page costs what it returns: shared prefixes behind a delimiter are skipped by seeking, not by reading.
 * Tests: unit/shard/test_core.c. */
#ifndef KV_SHARD_LIST_H
#define KV_SHARD_LIST_H

#include "ledger.h"

/* Appends the body of PAGE to `buf` and gives the position that must be durable before it may be shown. Two passes in one:
 * entries are written first into `scratch`, since their count stands in front. */
uint64_t list_page(struct ledger *ledger, const struct kv_msg_list *list, struct kv_buf *entries, size_t *count,
                   bool *more);

#endif
