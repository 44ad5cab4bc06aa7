/* tests/sim/bundle.h -- what the backend borrows of a client for one transaction, until it says release: freed then, so that a late use
 * is found. Large contents of PUTs that are alone come as uploads do: read piece by piece, or in a file. */
#ifndef SIM_BUNDLE_H
#define SIM_BUNDLE_H

#include "sim.h"

/* A large content as an upload is: not in memory. Its beginning is read by the router, the rest by a shard from `given.file`. */
struct upload {
    struct backend_content given;
    struct kv_slice readable;
};

struct bundle {
    struct op *op;
    struct backend_op ops[SIM_BATCH_MAX];
    char tags[SIM_BATCH_MAX][16];
    struct upload uploads[SIM_BATCH_MAX];
};

struct bundle *bundle_new(struct sim *sim, struct op *op);
/* Of the backend; `arg` is the bundle. */
void bundle_release(void *arg);

#endif
