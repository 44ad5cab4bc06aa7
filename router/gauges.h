/* router/gauges.h -- tells the counters page what waits on a loop, for shards, for clients, and what its cache holds.
 * Does:     samples it every GAUGES_MS, and when asked: what other threads show in a scrape is at most so old. Counting where things
 *           begin and end would cost every request, and a forgotten path would never show.
 * Tests:    http/test_http_metrics.c, system/test_metrics.c. */
#ifndef KV_ROUTER_GAUGES_H
#define KV_ROUTER_GAUGES_H

#define GAUGES_MS 100 /* libh2o's hundred_ms_timeout */

struct router_thread;

/* On the loop's own thread, once its backend is there. */
void gauges_start(struct router_thread *thread);
/* Samples now; on the loop's own thread. */
void gauges_read(struct router_thread *thread);

#endif
