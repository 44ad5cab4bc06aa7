/* tests/sim/hang.h -- one shard hangs for long while clients go on with the others: what those remember must not grow. */
#ifndef SIM_HANG_H
#define SIM_HANG_H

#include "sim.h"

/* For runs of config.hang: a shard stops, in half of them the router dies meanwhile, and now and then the others are looked at. */
void hang_start(struct sim *sim);

#endif
