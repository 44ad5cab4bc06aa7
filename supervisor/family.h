/* supervisor/family.h -- the children: N shards and the router. Started, watched for their READY byte, started again.
 * The caller decides when all of this ends (supervise.c). Every callback may call any function below. */
#ifndef KV_FAMILY_H
#define KV_FAMILY_H

#include "datadir.h"
#include "handover.h"
#include "kv/counters_page.h"
#include "loop.h"
#include "restart.h"
#include "spawn.h"

/* What children are made of. Borrowed: must outlive the family. */
struct family_world {
    const struct kv_settings *settings;
    struct datadir *datadir;
    unsigned shard_count;
    int shard_fds[KV_SHARDS_MAX]; /* listening Unix sockets */
    int plain_fd;                 /* listening TCP sockets, /dev/null when off */
    int tls_fd;
    int counters_fd; /* kv/counters_page.h */
    struct kv_counters_page *counters;
    int files_fd;              /* memfd of kv/files.h: what the first router starts with; the family takes it over */
    const char *shard_program; /* absolute paths */
    const char *router_program;
};

struct family_events {
    void (*on_all_ready)(void *arg);   /* once: every child has said READY at least once and runs */
    void (*on_wrong_start)(void *arg); /* a child ended with KV_EXIT_CONFIG */
    void (*on_end)(void *arg);         /* some child has ended */
    void *arg;
};

struct child {
    struct family *family;
    char name[24];   /* "shard 2", "router" */
    int shard_index; /* -1: the router */
    pid_t pid;       /* 0: not running */
    int status_fd;   /* our end of its status pipe, -1 when closed */
    struct loop_watch status_watch;
    struct loop_timer restart_timer;
    struct restart restart;
    uint64_t started_ms;
    uint64_t ready_ms; /* 0: not yet */
    bool stays_down;   /* not started again when it ends */
};

struct family {
    struct loop *loop;
    struct family_world world;
    struct family_events events;
    struct child shards[KV_SHARDS_MAX];
    struct child router;
    struct handover handover; /* of files, to the router */
    bool all_were_ready;
    bool router_was_ready; /* ever: only then can a client have written something */
};

void family_init(struct family *family, struct loop *loop, const struct family_world *world,
                 const struct family_events *events);
/* Shards, then the router, which waits for them itself. */
void family_start(struct family *family);
/* Call on SIGCHLD. */
void family_reap(struct family *family);

/* Sends the signal to the router, or to every shard; a child that gets one here is not started again. */
void family_stop_router(struct family *family, int signal_number);
void family_stop_shards(struct family *family, int signal_number);
/* New files for the router (kv/files.h), a memfd that is taken over: at once, or when it is ready. */
void family_reload_router(struct family *family, int files_fd);
bool family_router_runs(const struct family *family);
unsigned family_shards_running(const struct family *family);
/* Disarms timers and closes what the family opened. Children must have ended. */
void family_close(struct family *family);

#endif
