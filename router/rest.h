/* router/rest.h -- what an idle router gives back to the system.
 * Does:     looks at each loop every REST_MS: one that had hardly a request since the last look, and had before, gives back zstd's
 *           contexts, its buffers, and what malloc keeps for its thread; so do the threads kv-codec and kv-batch REST_MS after
 *           their last work. Answers that nobody has asked for a while leave the cache, whatever else goes on (cache_sweep).
 * Why:      malloc and zstd keep what a load took: 20 MiB of an idle router, and CACHE_BYTES.
 * Tests:    system/test_memory.c. */
#ifndef KV_ROUTER_REST_H
#define KV_ROUTER_REST_H

#include <pthread.h>
#include <stdbool.h>

#define REST_MS 10000u
#define REST_REQUESTS 20u /* health checks and scrapes are not more */

struct router_thread;

/* On the loop's own thread, once all that it owns is there. */
void rest_start(struct router_thread *thread);

/* pthread_cond_wait for a thread that works now and then. True: `*worked`, and nothing came for REST_MS; `*worked` is false then, and
 * it is time to give things back. */
bool rest_wait(pthread_cond_t *changed, pthread_mutex_t *lock, bool *worked);

#endif
