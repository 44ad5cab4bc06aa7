/* supervisor/restart.c -- the pauses of restart.h.
 * Does:     dead before ready: 50 ms, doubling up to a quarter of SHARD_WAIT_MS. Dead soon after ready: the same up to 1 s. Dead after a
 *           steady time: at once, and the pause begins anew. KV_EXIT_CORRUPT and KV_EXIT_UNREAD: always the longest pause,
 *           since damaged files do not heal by trying. KV_EXIT_CONFIG: never.
 * Tests:    unit/supervisor/test_restart.c. */
#include "kv/child.h"
#include "restart.h"

static uint64_t at_most(uint64_t pause_ms, uint64_t pause_ms_max)
{
    return pause_ms < pause_ms_max ? pause_ms : pause_ms_max;
}

uint64_t restart_pause_ms_max(uint64_t shard_wait_ms)
{
    uint64_t pause_ms = at_most(shard_wait_ms / RESTART_PAUSES_OF_WAIT, RESTART_PAUSE_MS_MAX);
    return pause_ms < RESTART_PAUSE_MS_MIN ? RESTART_PAUSE_MS_MIN : pause_ms;
}

enum restart_verdict restart_decide(struct restart *restart, const struct restart_ending *ending, uint64_t *wait_ms)
{
    int exit_code = ending->by_signal ? -1 : ending->exit_code;
    if (exit_code == KV_EXIT_CONFIG)
        return RESTART_NEVER;
    if (exit_code == KV_EXIT_CORRUPT || exit_code == KV_EXIT_UNREAD) {
        *wait_ms = RESTART_PAUSE_MS_MAX;
        return RESTART_AFTER_PAUSE;
    }
    if (ending->was_ready && ending->ready_ms >= RESTART_STEADY_MS) {
        restart->pause_ms = 0;
        *wait_ms = 0;
        return RESTART_AFTER_PAUSE;
    }
    uint64_t pause_ms = restart->pause_ms == 0 ? RESTART_PAUSE_MS_MIN : restart->pause_ms;
    *wait_ms = ending->was_ready ? at_most(pause_ms, RESTART_PAUSE_MS_MAX_READY) : pause_ms;
    restart->pause_ms = at_most(pause_ms * 2, restart->pause_ms_max);
    return RESTART_AFTER_PAUSE;
}
