/* router/thread.h -- one event loop of the router, and everything that belongs to it alone.
 * Does:     makes h2o's context, backend, codec and listeners on its own thread, runs the loop, drains it.
 * Owns:     all of struct router_thread; another thread reads its atomic counters and else talks to it through `control`.
 * Promises: a drain closes the listeners, lets uploads and requests under way end, says GOAWAY or `Connection: close`, and cuts
 *           idle HTTP/1 connections. A loop that is through stays parked: the process is about to end.
 * Tests:    http/test_http_drain.c. */
#ifndef KV_ROUTER_THREAD_H
#define KV_ROUTER_THREAD_H

#include <h2o.h>
#include <pthread.h>
#include <semaphore.h>

#include "backend.h"
#include "cache.h"
#include "codec.h"
#include "frames.h"
#include "gets.h"
#include "h2o_guard.h"
#include "listen.h"
#include "server.h"

struct router_thread {
    struct server *server;
    unsigned index;
    pthread_t id;
    sem_t serving; /* posted once, when the loop runs */
    sem_t drained; /* posted once, when a drain is through */
    h2o_context_t context;
    struct backend *backend;
    struct codec *codec;
    struct cache *cache;   /* NULL when CACHE_BYTES is 0 */
    struct frames *frames; /* as the cache */
    struct gets gets;      /* that wait to be looked up */
    struct listeners listeners;
    struct tokens *tokens;              /* a reference of its own */
    struct metrics_thread *metrics;     /* its slot */
    h2o_multithread_receiver_t tasked;  /* results of task.h */
    h2o_multithread_receiver_t worked;  /* results of work.h */
    h2o_multithread_receiver_t control; /* thread_drain */
    h2o_timeout_t client_wait;          /* CLIENT_WAIT_MS */
    _Atomic size_t exchanges;           /* requests that a handler has, */
    size_t exchanges_h2;                /* those of them over HTTP/2, */
    size_t unread;                      /* and those whose client has bytes to take (http_watch) */
    size_t refusals_delayed;            /* admit.h */
    h2o_timeout_entry_t gauges;         /* gauges.h */
    uint64_t requests;                  /* so far */
    uint64_t random;                    /* state of the request ids */
    struct {
        struct guarded *connections; /* utlist: all that are open */
        struct guarded *crowded;     /* of these, those with requests that wait for room */
        h2o_timeout_entry_t room;
        h2o_timeout_entry_t tick;
    } guard;
    struct { /* rest.h */
        h2o_timeout_t timeout;
        h2o_timeout_entry_t entry;
        uint64_t requests; /* at the last look */
        unsigned due;
    } rest;
    struct {
        bool asked;
        struct timeval asked_at; /* the loop's clock: requests that begin later get 503 */
        bool announced;          /* GOAWAY and Connection: close */
        uint64_t announce_by_ms;
        h2o_timeout_entry_t tick;
    } drain;
};

void thread_start(struct router_thread *thread, struct server *server, unsigned index);
void thread_wait_serving(struct router_thread *thread);
/* From any thread. */
void thread_drain(struct router_thread *thread, uint64_t wait_ms);
/* From any thread: what holds for requests and, unless NULL, for connections from now on. Both stay the caller's. */
void thread_use(struct router_thread *thread, struct tokens *tokens, SSL_CTX *tls);
/* False: the deadline (kv_clock_ms) passed first. */
bool thread_wait_drained(struct router_thread *thread, uint64_t deadline_ms);

#endif
