/* tests/system/checker.h -- is a history linearizable? Wing and Gong's search with Lowe's memory.
 * Does:     splits the history into components, keys that no operation joins (linearizability is local: Herlihy and Wing), and searches
 *           each for an order of operations that fits times and answers (Wing, Gong: Testing and Verifying Concurrent Objects, 1993;
 *           the memory of states reached: Lowe, Testing for Linearizability, 2017).
 * Promises: an order is found exactly when there is one; but states reached are remembered by 128-bit digests, so a wrong "no" has a
 *           chance below 2^-64. Operations without an answer may be placed anywhere after they began, or nowhere.
 * Fails:    CHECKER_TIRED after CHECKER_STATES_MAX states of one component: not a yes.
 * Tests:    test_checker.c, on histories written by hand and made by a seed. */
#ifndef KV_SYSTEM_CHECKER_H
#define KV_SYSTEM_CHECKER_H

#include "history.h"

#define CHECKER_STATES_MAX 5000000u /* 256 MiB of memory */

enum checker_verdict { CHECKER_YES, CHECKER_NO, CHECKER_TIRED };

/* All keys are absent at first. Unless YES, `why` names the component and the operation that no order gets beyond, and its neighbours. */
enum checker_verdict checker_run(const struct history *history, char *why, size_t why_bytes);

#endif
