/* router/forget.h -- the ids of a router's transactions, and which of them every shard may forget.
 * Does:     numbers transactions over all threads. Each thread publishes now and then what it has open; thread 0 tells every
 *           shard: all ids between two numbers have ended everywhere, but for these. The ones that are named are open for
 *           FORGET_OPEN_MS and more, because a shard hangs or is gone: usually there is none, and one that is open for
 *           hours keeps nothing else from being forgotten.
 * Owns:     nothing that shards must know after a crash. One FORGET is under way to each shard, whatever happens to it.
 * Promises: an id that is told is not in use by any thread, now or later. Ids of older routers are told once all of those are
 *           decided (txn_ids_recovered), ids of this one from its first moment.
 * Limits:   TXNS_ACTIVE_MAX ids of each of KV_ROUTER_THREADS_MAX threads fit a frame.
 * Threads:  txn_ids is shared; struct forget is thread 0's.
 * Tests:    unit/router/test_forget.c, sim/. */
#ifndef KV_ROUTER_FORGET_H
#define KV_ROUTER_FORGET_H

#include <pthread.h>
#include <stdatomic.h>

#include "calls.h"
#include "txn.h"

#define FORGET_OPEN_MS 1000u
#define FORGET_NAMED_MS 500u /* between two lists, as long as ids must be named */

/* What one thread has open. */
struct txn_ids_thread {
    _Atomic uint64_t young; /* at most the smallest id in use that is not in `named`; 0: there is none */
    struct kv_buf named;    /* ids, ascending, each a uint64_t; under the mutex */
    uint64_t old_below;     /* ids below it are old; the thread's own, like the rest */
    uint64_t old_below_next;
    uint64_t marked_ms;
    uint64_t published_ms;
};

struct txn_ids {
    uint64_t first; /* of this router, but for one: kv_txn_id(epoch, 0) */
    _Atomic uint64_t sequence;
    _Atomic bool recovered;
    pthread_mutex_t mutex;
    struct txn_ids_thread threads[KV_ROUTER_THREADS_MAX];
};

/* Before the first thread uses it. */
void txn_ids_init(struct txn_ids *ids, uint64_t epoch);
/* For tests: a router just exits. */
void txn_ids_clear(struct txn_ids *ids);
/* The next id, for this thread. */
uint64_t txn_ids_next(struct txn_ids *ids, unsigned thread_index);
/* Every 20 ms or so, by each thread. */
void txn_ids_publish(struct txn_ids *ids, unsigned thread_index, const struct txns *txns, uint64_t now_ms);
/* Nothing of an older router is in doubt any more. */
void txn_ids_recovered(struct txn_ids *ids);
bool txn_ids_are_recovered(const struct txn_ids *ids);
/* Of two ids, each a uint64_t: for qsort and bsearch. */
int txn_ids_compare(const void *a, const void *b);

struct forget;

struct forget *forget_new(struct calls *calls, unsigned shard_count, struct txn_ids *ids);
void forget_free(struct forget **forget);
/* Every 20 ms or so, behind txn_ids_publish: tells the shards what is new. */
void forget_tick(struct forget *forget, uint64_t now_ms);

#endif
