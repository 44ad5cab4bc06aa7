/* tests/sim/router.h -- one router process: up to two threads, each with the real coordinator (calls, txn, recovery, plan and the
 * backend's files) over simulated links. router/backend.c, whose timers are h2o's, has its twin here.
 * A router that was replaced may live on for a while, on the links that are up, and connect again: its successor must fence it, and
 * so must a shard that restarts, by the epoch that the supervisor gave it. */
#ifndef SIM_ROUTER_H
#define SIM_ROUTER_H

#include "backend_internal.h"
#include "cache.h"
#include "link.h"

struct thread {
    struct backend backend; /* first: the twin's functions get this */
    struct router *router;
    struct cache *cache;                /* in front of reads that want bytes */
    struct link *links[SIM_SHARDS_MAX]; /* NULL while there is a pause */
    bool connect_is_due[SIM_SHARDS_MAX];
    bool failures_are_due;
    bool pauses_are_due;
};

struct router {
    struct process process; /* first */
    struct router *older;
    uint64_t epoch;
    struct txn_ids ids;
    struct marks *marks;
    struct thread threads[SIM_THREADS_MAX];
};

/* Starts the next router: sim->router. */
void router_start(struct sim *sim);
/* With everything it has under way. */
void router_crash(struct router *router);
/* Frees what a router at rest has; what is left on its heap then is a leak. */
void router_close(struct router *router);
/* A frame, or the end of the stream (no bytes). */
void router_receive(struct link *link, struct kv_slice bytes);
bool router_is_quiet(const struct router *router, const char **why);
/* Contents of all routers of a run are coded with the same contexts. */
struct codec *router_codec(void);

#endif
