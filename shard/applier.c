/* shard/applier.c -- see applier.h. One mutex guards the queue, the results and the counters; it is never held over a call into
 * the store. The thread's nice value is raised, since it is the largest consumer of CPU and nobody waits for it. */
#include "applier.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "kv/clock.h"
#include "kv/log.h"

#define APPLIER_NICE 10

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
    struct result *first_result;
    struct result **last_result;
    struct applier_stats stats;

    /* the thread's own */
    bool sweep_pending;
    unsigned groups;   /* stored since the last sweep */
    uint64_t retry_ms; /* do not touch the generation before; 0 = at once */
    uint64_t *held; /* of the last generation applied: a reader of a dead object began before its death was applied */
    size_t held_count;
};

/* ---- the store as the world ----------------------------------------------------------------------------------- */

static enum kv_err world_apply(void *ctx, const struct core_generation *generation, size_t sweep_rows_max)
{
    return store_apply(ctx, generation->rows, &generation->meta, generation->held, generation->held_count,
                       sweep_rows_max);
}

static enum kv_err world_stage(void *ctx, const struct store_piece *pieces, size_t count)
{
    return store_stage(ctx, pieces, count);
}

static enum kv_err world_unstage(void *ctx, const uint64_t *object_ids, size_t count)
{
    return store_unstage(ctx, object_ids, count);
}

static enum kv_err world_sweep(void *ctx, const uint64_t *held, size_t held_count, size_t sweep_rows_max)
{
    return store_sweep(ctx, held, held_count, sweep_rows_max);
}

struct applier_world applier_store_world(struct store *store)
{
    return (struct applier_world){store, world_apply, world_stage, world_unstage, world_sweep};
}

/* ---- results, from the thread to the loop --------------------------------------------------------------------- */

static void ring(struct applier *applier)
{
    uint64_t one = 1;
    while (write(applier->event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

static void report(struct applier *applier, struct applier_result result)
{
    struct result *node = kv_alloc(sizeof(*node));
    *node = (struct result){.result = result};
    pthread_mutex_lock(&applier->mutex);
    *applier->last_result = node;
    applier->last_result = &node->next;
    pthread_mutex_unlock(&applier->mutex);
    ring(applier);
}

static void report_failure(struct applier *applier, enum kv_err err, const char *what)
{
    report(applier, (struct applier_result){.kind = APPLIER_FAILED, .err = err, .what = what});
}

bool applier_next(struct applier *applier, struct applier_result *out)
{
    pthread_mutex_lock(&applier->mutex);
    struct result *node = applier->first_result;
    if (node != NULL) {
        applier->first_result = node->next;
        if (node->next == NULL)
            applier->last_result = &applier->first_result;
    }
    pthread_mutex_unlock(&applier->mutex);
    if (node == NULL)
        return false;
    *out = node->result;
    free(node);
    return true;
}

/* ---- a generation --------------------------------------------------------------------------------------------- */

static void remember_held(struct applier *applier, const struct core_generation *generation)
{
    size_t bytes = generation->held_count * sizeof(*generation->held);
    free(applier->held);
    applier->held = (uint64_t *)(void *)kv_copy(kv_slice(generation->held, bytes));
    applier->held_count = generation->held_count;
}

static void set_full(struct applier *applier, bool full)
{
    if (atomic_exchange(&applier->full, full) == full)
        return;
    if (full)
        kv_warn("no space to apply rows: writes are refused until there is, deletes and reads go on");
    else
        kv_info("rows are applied again: writes are accepted");
    ring(applier);
}

static void count_generation(struct applier *applier, size_t rows, uint64_t ns)
{
    struct applier_stats *stats = &applier->stats;
    pthread_mutex_lock(&applier->mutex);
    applier->generation = NULL;
    stats->generation_rows += rows;
    kv_histogram_add(&stats->generation_ns, &kv_histogram_times, ns);
    if (ns > stats->generation_ns_max)
        stats->generation_ns_max = ns;
    pthread_mutex_unlock(&applier->mutex);
}

static void run_generation(struct applier *applier, struct core_generation *generation)
{
    uint64_t start_ns = kv_clock_ns();
    enum kv_err err = applier->world.apply(applier->world.ctx, generation, APPLIER_SWEEP_ROWS);
    if (err == KV_OK) {
        remember_held(applier, generation);
        applier->sweep_pending = true;
        applier->retry_ms = 0;
        count_generation(applier, overlay_rows(generation->rows), kv_clock_ns() - start_ns);
        set_full(applier, false);
        report(applier, (struct applier_result){.kind = APPLIER_APPLIED});
        return;
    }
    applier->retry_ms = kv_clock_ms() + APPLIER_RETRY_MS;
    if (err != KV_NO_SPACE) {
        report_failure(applier, err, "applying rows");
        return;
    }
    pthread_mutex_lock(&applier->mutex);
    applier->stats.generations_refused++;
    pthread_mutex_unlock(&applier->mutex);
    applier->sweep_pending = true; /* dead rows may be what fills it */
    set_full(applier, true);
}

/* ---- staged content ------------------------------------------------------------------------------------------- */

/* Takes the longest run of jobs of one kind from the front, pieces up to APPLIER_GROUP_BYTES. Mutex held. */
static struct job *take_group(struct applier *applier, size_t *count)
{
    struct job *first = applier->first, **end = &applier->first;
    uint64_t bytes = 0;
    *count = 0;
    while (*end != NULL && (*end)->kind == first->kind &&
           (*count == 0 || bytes + store_piece_bytes(&(*end)->piece) <= APPLIER_GROUP_BYTES)) {
        bytes += store_piece_bytes(&(*end)->piece);
        end = &(*end)->next;
        (*count)++;
    }
    applier->first = *end;
    *end = NULL;
    if (applier->first == NULL)
        applier->last = &applier->first;
    applier->stats.stage_queue_bytes -= bytes;
    return first;
}

static enum kv_err stage_group(struct applier *applier, const struct job *jobs, size_t count)
{
    struct store_piece *pieces = kv_alloc(count * sizeof(*pieces));
    uint64_t start_ns = kv_clock_ns(), bytes = 0;
    for (size_t i = 0; i < count; i++, jobs = jobs->next) {
        pieces[i] = jobs->piece;
        bytes += store_piece_bytes(&jobs->piece);
    }
    enum kv_err err = applier->world.stage(applier->world.ctx, pieces, count);
    free(pieces);
    pthread_mutex_lock(&applier->mutex);
    applier->stats.stage_groups++;
    applier->stats.stage_pieces += count;
    applier->stats.stage_bytes += err == KV_OK ? bytes : 0;
    applier->stats.stage_ns += kv_clock_ns() - start_ns;
    pthread_mutex_unlock(&applier->mutex);
    return err;
}

static void report_staged(struct applier *applier, const struct job *job, enum kv_err err)
{
    report(applier, (struct applier_result){.kind = APPLIER_STAGED,
                                            .err = err,
                                            .session = job->session,
                                            .request_id = job->request_id,
                                            .object_id = job->piece.object_id,
                                            .offset = job->piece.offset,
                                            .bytes = store_piece_bytes(&job->piece),
                                            .copied_bytes = job->piece.bytes.bytes});
}

/* A file that cannot be read is the fault of the one who sent it: the others are staged without it. */
static void run_stage(struct applier *applier, const struct job *jobs, size_t count)
{
    enum kv_err err = stage_group(applier, jobs, count);
    if (err == KV_INVALID && count > 1) {
        for (; jobs != NULL; jobs = jobs->next)
            run_stage(applier, jobs, 1);
        return;
    }
    if (err != KV_OK && err != KV_NO_SPACE && err != KV_INVALID) {
        report_failure(applier, err, "staging content");
        return;
    }
    for (; count > 0; count--, jobs = jobs->next)
        report_staged(applier, jobs, err == KV_INVALID ? KV_IO : err);
}

/* Without room the ids stay staged, and the next start finds and gives them up: nobody waits for this. */
static void run_unstage(struct applier *applier, const struct job *jobs, size_t count)
{
    uint64_t *ids = kv_alloc(count * sizeof(*ids));
    size_t i = 0;
    for (const struct job *job = jobs; job != NULL; job = job->next)
        ids[i++] = job->piece.object_id;
    enum kv_err err = applier->world.unstage(applier->world.ctx, ids, count);
    free(ids);
    applier->sweep_pending = true;
    if (err == KV_NO_SPACE)
        kv_warn("no space to give up staged content: left to the next start");
    else if (err != KV_OK)
        report_failure(applier, err, "giving up staged content");
}

static void free_jobs(struct job *jobs)
{
    for (struct job *next; jobs != NULL; jobs = next) {
        next = jobs->next;
        if (jobs->piece.file.bytes > 0)
            close(jobs->piece.file.fd);
        free(jobs);
    }
}

static void run_group(struct applier *applier, struct job *jobs, size_t count)
{
    if (jobs->kind == JOB_STAGE)
        run_stage(applier, jobs, count);
    else
        run_unstage(applier, jobs, count);
    free_jobs(jobs);
    pthread_mutex_lock(&applier->mutex);
    applier->staging = false;
    pthread_mutex_unlock(&applier->mutex);
}

static void run_sweep(struct applier *applier)
{
    uint64_t start_ns = kv_clock_ns();
    enum kv_err err = applier->world.sweep(applier->world.ctx, applier->held, applier->held_count, APPLIER_SWEEP_ROWS);
    applier->groups = 0;
    applier->sweep_pending = err == KV_OK;
    if (err == KV_NOT_FOUND)
        return;
    pthread_mutex_lock(&applier->mutex);
    applier->stats.sweeps++;
    applier->stats.sweep_ns += kv_clock_ns() - start_ns;
    pthread_mutex_unlock(&applier->mutex);
    if (err != KV_OK && err != KV_NO_SPACE) /* without room: again after the next generation */
        report_failure(applier, err, "sweeping dead content");
}

/* ---- the thread ----------------------------------------------------------------------------------------------- */

/* Waits for work of any kind; mutex held. With a generation that met a full disk: until its next try. */
static void wait_for_work(struct applier *applier)
{
    while (!applier->stopping && applier->first == NULL && !applier->sweep_pending) {
        uint64_t now_ms = kv_clock_ms();
        if (applier->generation == NULL) {
            applier->resting = true;
            pthread_cond_wait(&applier->changed, &applier->mutex);
            applier->resting = false;
            continue;
        }
        if (applier->retry_ms <= now_ms)
            return;
        struct timespec until = {.tv_sec = (time_t)(applier->retry_ms / 1000),
                                 .tv_nsec = (long)(applier->retry_ms % 1000) * 1000000L};
        pthread_cond_timedwait(&applier->changed, &applier->mutex, &until);
    }
}

/* One piece of each kind of work, so that neither starves the other; sweeping when there is neither, and now and then between
 * groups, or uploads without a pause would fill the disk beside what nobody refers to any more. */
static bool work(struct applier *applier)
{
    size_t count = 0;
    struct job *jobs = NULL;
    pthread_mutex_lock(&applier->mutex);
    wait_for_work(applier);
    bool stopping = applier->stopping;
    struct core_generation *generation = applier->generation;
    if (generation != NULL && applier->retry_ms > kv_clock_ms())
        generation = NULL;
    if (applier->first != NULL && !stopping) {
        jobs = take_group(applier, &count);
        applier->staging = true;
    }
    pthread_mutex_unlock(&applier->mutex);
    if (stopping)
        return false;
    if (generation != NULL)
        run_generation(applier, generation);
    if (jobs != NULL)
        run_group(applier, jobs, count);
    applier->groups += jobs != NULL;
    if (generation == NULL && applier->sweep_pending && (jobs == NULL || applier->groups >= APPLIER_SWEEP_GROUPS))
        run_sweep(applier);
    return true;
}

static void *run(void *arg)
{
    if (setpriority(PRIO_PROCESS, 0, APPLIER_NICE) != 0) /* 0: of this thread */
        kv_warn("the applier keeps its priority: %m");
    while (work(arg))
        ;
    return NULL;
}

struct applier *applier_new(const struct applier_world *world)
{
    struct applier *applier = kv_alloc_zero(1, sizeof(*applier));
    applier->world = *world;
    applier->last = &applier->first;
    applier->last_result = &applier->first_result;
    applier->sweep_pending = true; /* what the last process left */
    applier->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC); /* retry_ms is kv_clock_ms */
    pthread_cond_init(&applier->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&applier->mutex, NULL);
    if (applier->event_fd < 0 || pthread_create(&applier->thread, NULL, run, applier) != 0)
        kv_fatal("cannot start the applier: %m");
    pthread_setname_np(applier->thread, "kv-applier");
    return applier;
}

void applier_free(struct applier **applier_at)
{
    struct applier *applier = *applier_at;
    struct applier_result result;
    if (applier == NULL)
        return;
    pthread_mutex_lock(&applier->mutex);
    applier->stopping = true;
    pthread_cond_signal(&applier->changed);
    pthread_mutex_unlock(&applier->mutex);
    pthread_join(applier->thread, NULL);
    while (applier_next(applier, &result))
        ;
    free_jobs(applier->first);
    pthread_mutex_destroy(&applier->mutex);
    pthread_cond_destroy(&applier->changed);
    close(applier->event_fd);
    free(applier->held);
    free(applier);
    *applier_at = NULL;
}

/* ---- the loop's side ------------------------------------------------------------------------------------------ */

void applier_apply(struct applier *applier, struct core_generation *generation)
{
    pthread_mutex_lock(&applier->mutex);
    kv_assert(applier->generation == NULL);
    applier->generation = generation;
    pthread_cond_signal(&applier->changed);
    pthread_mutex_unlock(&applier->mutex);
}

static void enqueue(struct applier *applier, struct job *job)
{
    pthread_mutex_lock(&applier->mutex);
    *applier->last = job;
    applier->last = &job->next;
    applier->stats.stage_queue_bytes += store_piece_bytes(&job->piece);
    pthread_cond_signal(&applier->changed);
    pthread_mutex_unlock(&applier->mutex);
}

void applier_stage(struct applier *applier, uint64_t session, uint64_t request_id, const struct store_piece *piece)
{
    struct job *job = kv_alloc(sizeof(*job) + piece->bytes.bytes);
    *job = (struct job){.kind = JOB_STAGE, .session = session, .request_id = request_id, .piece = *piece};
    if (piece->bytes.bytes > 0)
        memcpy(job->bytes, piece->bytes.data, piece->bytes.bytes);
    job->piece.bytes = kv_slice(job->bytes, piece->bytes.bytes);
    enqueue(applier, job);
}

void applier_unstage(struct applier *applier, uint64_t object_id)
{
    struct job *job = kv_alloc(sizeof(*job));
    *job = (struct job){.kind = JOB_UNSTAGE, .piece = {.object_id = object_id}};
    enqueue(applier, job);
}

int applier_event_fd(const struct applier *applier)
{
    return applier->event_fd;
}

bool applier_full(const struct applier *applier)
{
    return atomic_load(&applier->full);
}

bool applier_is_idle(struct applier *applier)
{
    pthread_mutex_lock(&applier->mutex);
    bool idle = applier->resting && applier->generation == NULL && applier->first == NULL;
    pthread_mutex_unlock(&applier->mutex);
    return idle;
}

bool applier_staging(struct applier *applier)
{
    pthread_mutex_lock(&applier->mutex);
    bool staging = applier->staging || applier->first != NULL;
    pthread_mutex_unlock(&applier->mutex);
    return staging;
}

void applier_stats(struct applier *applier, struct applier_stats *out)
{
    pthread_mutex_lock(&applier->mutex);
    *out = applier->stats;
    applier->stats.generation_ns_max = 0; /* since the last call */
    pthread_mutex_unlock(&applier->mutex);
}
