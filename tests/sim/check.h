/* tests/sim/check.h -- was every promise kept?
 * Does:     reads from the journals of all shards which transactions were committed, and when; runs the model over them in that
 *           order; compares with what every client was told. The order is a witness: a transaction took effect when the last of its
 *           shards voted. If the model agrees in that order, and each operation has its moment between question and answer,
 *           the history is strictly serializable.
 * Promises: acknowledged = there; batches whole, on every participant; refused = not there; uncertain = entirely or not
 *           at all. Applied rows, references, counters and contents are exact.
 * Fails:    sim_fail. */
#ifndef SIM_CHECK_H
#define SIM_CHECK_H

#include "model.h"
#include "sim.h"

/* All is at rest; the whole history against the journals. `out`: what the store holds now. */
void check_history(struct sim *sim, struct model *out);
/* A listing while nothing else was under way is exactly this. */
void check_quiet_list(const struct op *op, size_t index, const struct model *model);
/* All rows are applied: the tables of every shard against the model. */
void check_disks(struct sim *sim, const struct model *model);

#endif
