/* supervisor/memory.h -- whether what the settings ask for fits into the memory that this service may use.
 * Does:     adds up what README ("Fixed limits") says each process needs at most, and finds the least of the machine's memory and
 *           the limits of the service's control group and of those around it (cgroup 2 or 1; a container, a systemd unit).
 * Decides:  too little is a warning at the start, no refusal: a store that is asked little needs little. But without a word the
 *           kernel would kill a shard at its first large load, and nobody would know what to change.
 * Fails:    a limit that cannot be read is none.
 * Tests:    unit/supervisor/test_memory.c, docker/test-compose. */
#ifndef KV_MEMORY_H
#define KV_MEMORY_H

#include "kv/settings.h"

/* `settings` after config_read, so with ROUTER_THREADS. */
uint64_t memory_needed_bytes(const struct kv_settings *settings, uint64_t shard_count);

/* Of the control groups that `groups` (as /proc/self/cgroup) names below `mount` (as /sys/fs/cgroup). UINT64_MAX: none. */
uint64_t memory_group_limit_bytes(const char *groups, const char *mount);

void memory_warn(const struct kv_settings *settings, uint64_t shard_count);

#endif
