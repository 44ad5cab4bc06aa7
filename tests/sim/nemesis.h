/* tests/sim/nemesis.h -- what goes wrong: crashes, broken links, stopped processes, full disks, at random moments. */
#ifndef SIM_NEMESIS_H
#define SIM_NEMESIS_H

#include "sim.h"

/* Places in config.fault_weights. */
enum nemesis {
    NEMESIS_SHARD,
    NEMESIS_ROUTER,
    NEMESIS_REPLACE,
    NEMESIS_ALL,
    NEMESIS_BOTH,
    NEMESIS_LINK,
    NEMESIS_STOP,
    NEMESIS_DISK,
    NEMESIS_COUNT
};

void nemesis_start(struct sim *sim);
/* No more of it: everything runs again, once the restarts that are under way are through. */
void nemesis_heal(struct sim *sim);

#endif
