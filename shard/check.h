/* shard/check.h -- `kv-shard --check DB_PATH`: are the files of a stopped store whole?
 * Does:     reads DB_PATH/store (supervisor/identity.h) for the number of shards and the id; per shard opens LMDB, replays the
 *           journal into a core without applying it, walks everything (store_check), prints one line:
 *             shard <i> keys N objects N stored_bytes N journal_records N: ok       or       shard <i>: <what is wrong>
 *           The numbers are those after replay. Records are those that the next start would replay.
 * Promises: nothing is changed, so a copy on a read-only mount will do. A store whose supervisor runs is refused (what looks torn
 *           may be on its way), and none starts on one that is being checked.
 * Tests:    unit/shard/test_check.c, system/. */
#ifndef KV_SHARD_CHECK_H
#define KV_SHARD_CHECK_H

#include <stddef.h>

/* Checks the stores in turn, prints to standard output, returns the exit code: 0 all whole, 1 some fault. */
int check_stores(const char *const *paths, size_t count);

#endif
