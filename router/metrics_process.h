/* router/metrics_process.h -- what /proc says about a process. Zeros for one that cannot be looked at.
 * Tests: unit/router/test_metrics.c. */
#ifndef KV_ROUTER_METRICS_PROCESS_H
#define KV_ROUTER_METRICS_PROCESS_H

#include <stdint.h>
#include <sys/types.h>

struct metrics_process {
    uint64_t cpu_us; /* user and system */
    uint64_t rss_bytes;
    uint64_t fds;
};

struct metrics_process metrics_process_read(pid_t pid);

#endif
