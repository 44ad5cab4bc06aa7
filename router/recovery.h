/* router/recovery.h -- what a new router makes of the transactions that the last one left open: pure code over calls.h.
 * Does:     asks every shard for its intents and done ids (each shard fenced the old epoch before it answers), then decides:
 *           committed when every participant has prepared or done it, aborted when some participant knows nothing of it.
 * Promises: a transaction is decided only when all its participants have reported. Shards that report already serve: undecided
 *           keys are guarded by their intents. Until all is decided nothing older may be forgotten.
 * Tests:    unit/router/test_recovery.c, sim/. */
#ifndef KV_ROUTER_RECOVERY_H
#define KV_ROUTER_RECOVERY_H

#include "calls.h"

struct recovery;

/* Starts asking. `on_recovered` runs once, when every shard has reported and every decision has been carried out. */
struct recovery *recovery_new(struct calls *calls, unsigned shard_count, uint64_t epoch,
                              void (*on_recovered)(void *arg), void *arg);
void recovery_free(struct recovery **recovery);

#endif
