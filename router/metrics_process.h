/* router/metrics_process.h -- what /proc says about this process and the supervisor. Zeros where it says nothing.
 * The files are opened before the router gives up opening files (confine.h) and read again and again. Any thread.
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

/* Before confinement; again: does nothing. */
void metrics_process_open(void);
struct metrics_process metrics_process_own(void);
/* `fds` is left at 0: the supervisor counts them itself (kv/counters_page.h), nobody else may look. */
struct metrics_process metrics_process_supervisor(void);

#endif
