/* shard/applier_internal.h -- what applier.c (the thread and its queue) and applier_stage.c (staged content) share. Nobody else. */
#ifndef KV_SHARD_APPLIER_INTERNAL_H
#define KV_SHARD_APPLIER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "applier.h"

enum job_kind { JOB_STAGE, JOB_UNSTAGE };

struct job {
    struct job *next;
    enum job_kind kind;
    uint64_t session;
    uint64_t request_id;
    struct store_piece piece; /* UNSTAGE: object_id only */
    uint8_t bytes[];
};

struct result {
    struct result *next;
    struct applier_result result;
};

struct applier {
    struct applier_world world;
    pthread_t thread;
    int event_fd;
    _Atomic bool full;

    pthread_mutex_t mutex; /* guards everything from here to the next comment */
    pthread_cond_t changed;
    bool stopping;
    struct core_generation *generation; /* to apply */
    struct job *first;
    struct job **last;
    bool staging; /* a group is under way */
    bool resting; /* the thread waits, and there was nothing to do */
    bool trim;    /* asked for */
    struct result *first_result;
    struct result **last_result;
    struct applier_stats stats;

    /* the thread's own */
    bool sweep_pending;
    bool learn_pending;
    unsigned groups;   /* stored since the last sweep */
    uint64_t retry_ms; /* do not touch the generation before; 0 = at once */
    uint64_t *held;    /* of the last generation, begun or applied: who reads what it deletes began before */
    size_t held_count;
};

void applier_report(struct applier *applier, struct applier_result result);
void applier_report_failure(struct applier *applier, enum kv_err err, const char *what);

/* applier_stage.c */
/* Takes the longest run of jobs of one kind from the front, pieces up to APPLIER_GROUP_BYTES. Mutex held. */
struct job *applier_take_group(struct applier *applier, size_t *count);
void applier_run_group(struct applier *applier, struct job *jobs, size_t count);
void applier_free_jobs(struct job *jobs);

#endif
