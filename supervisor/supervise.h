/* supervisor/supervise.h -- the running store: signals in, an ordered stop out. */
#ifndef KV_SUPERVISE_H
#define KV_SUPERVISE_H

#include "family.h"

#define SUPERVISE_EXIT_FORCED 1

/* Blocks the signals that supervise() waits for; call before anything is forked. */
void supervise_block_signals(void);

struct supervise_options {
    uint64_t router_stop_ms; /* how long the router may take to drain before it is killed, */
    uint64_t shards_stop_ms; /* and shards to flush and close */
    void (*on_all_ready)(void *arg);
    void *arg;
};

/* Runs the family until SIGTERM or SIGINT (exit code 0), a second one (SUPERVISE_EXIT_FORCED) or a child that says
 * that the start was wrong (KV_EXIT_CONFIG). No child is left when it returns. `*served`: a client may have written. */
int supervise(const struct family_world *world, const struct supervise_options *options, bool *served);

#endif
