/* supervisor/restart.h -- when a child that died is started again. Pure policy: no clock, no process. */
#ifndef KV_RESTART_H
#define KV_RESTART_H

#include <stdbool.h>
#include <stdint.h>

#define RESTART_PAUSE_MS_MIN 50u
#define RESTART_PAUSE_MS_MAX 10000u
#define RESTART_PAUSES_OF_WAIT 4u        /* so many of the longest pauses fit what requests wait for a shard */
#define RESTART_PAUSE_MS_MAX_READY 1000u /* for one that had become ready: clients wait for it */
#define RESTART_STEADY_MS 1000u          /* ready for so long, the trouble before it is forgotten */

/* One per child; the rest is zero at first. */
struct restart {
    uint64_t pause_ms_max; /* restart_pause_ms_max */
    uint64_t pause_ms;     /* of the next death; 0: the shortest */
};

/* How a child ended. */
struct restart_ending {
    bool by_signal;
    int exit_code; /* when not by signal */
    bool was_ready;
    uint64_t ready_ms; /* for how long */
};

enum restart_verdict {
    RESTART_AFTER_PAUSE,
    RESTART_NEVER, /* KV_EXIT_CONFIG: the start was wrong, everything stops */
};

/* Requests wait `shard_wait_ms` for a shard that is down: one that fails at its start and could be back must be tried again before
 * they give up. Damaged files are none of it. */
uint64_t restart_pause_ms_max(uint64_t shard_wait_ms);
enum restart_verdict restart_decide(struct restart *restart, const struct restart_ending *ending, uint64_t *wait_ms);

#endif
