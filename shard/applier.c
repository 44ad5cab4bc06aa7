/* shard/applier.c -- see applier.h. One mutex guards the queue, the results and the counters; it is never held over a call into
 * the store. The thread's nice value is raised, since it is the largest consumer of CPU and nobody waits for it. */
#include "applier_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "kv/clock.h"
#include "kv/log.h"

#define APPLIER_NICE 10

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

static enum kv_err world_learn(void *ctx)
{
    return store_learn(ctx);
}

static void world_trim(void *ctx)
{
    (void)ctx; /* the allocator knows threads only */
    kv_trim();
}

struct applier_world applier_store_world(struct store *store)
{
    return (struct applier_world){store, world_apply, world_stage, world_unstage, world_sweep, world_learn, world_trim};
}

/* ---- results, from the thread to the loop --------------------------------------------------------------------- */

static void ring(struct applier *applier)
{
    uint64_t one = 1;
    while (write(applier->event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

void applier_report(struct applier *applier, struct applier_result result)
{
    struct result *node = kv_alloc(sizeof(*node));
    *node = (struct result){.result = result};
    pthread_mutex_lock(&applier->mutex);
    *applier->last_result = node;
    applier->last_result = &node->next;
    pthread_mutex_unlock(&applier->mutex);
    ring(applier);
}

void applier_report_failure(struct applier *applier, enum kv_err err, const char *what)
{
    applier_report(applier, (struct applier_result){.kind = APPLIER_FAILED, .err = err, .what = what});
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
        kv_warn("no space to apply rows: they wait in memory and in the journal");
    else
        kv_info("rows are applied again");
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
    remember_held(applier, generation); /* for sweeps behind half of it, too */
    enum kv_err err = applier->world.apply(applier->world.ctx, generation, APPLIER_SWEEP_ROWS);
    if (err == KV_OK) {
        applier->sweep_pending = true;
        applier->learn_pending = true;
        applier->retry_ms = 0;
        count_generation(applier, overlay_rows(generation->rows), kv_clock_ns() - start_ns);
        set_full(applier, false);
        applier_report(applier, (struct applier_result){.kind = APPLIER_APPLIED});
        return;
    }
    applier->retry_ms = kv_clock_ms() + APPLIER_RETRY_MS;
    if (err != KV_NO_SPACE) {
        applier_report_failure(applier, err, "cannot apply rows");
        return;
    }
    pthread_mutex_lock(&applier->mutex);
    applier->stats.generations_refused++;
    pthread_mutex_unlock(&applier->mutex);
    applier->sweep_pending = true; /* dead rows may be what fills it */
    set_full(applier, true);
}

/* ---- ahead of need -------------------------------------------------------------------------------------------- */

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
        applier_report_failure(applier, err, "cannot sweep dead content");
}

static void run_learn(struct applier *applier)
{
    enum kv_err err = applier->world.learn(applier->world.ctx);
    applier->learn_pending = err == KV_OK;
    if (err != KV_OK && err != KV_NOT_FOUND)
        applier_report_failure(applier, err, "cannot read rows for the filter");
}

/* ---- the thread ----------------------------------------------------------------------------------------------- */

/* Mutex held, but not meanwhile. */
static void trim(struct applier *applier)
{
    applier->trim = false;
    pthread_mutex_unlock(&applier->mutex);
    applier->world.trim(applier->world.ctx);
    pthread_mutex_lock(&applier->mutex);
}

/* Waits for work of any kind; mutex held. With a generation that met a full disk: until its next try. */
static void wait_for_work(struct applier *applier)
{
    while (!applier->stopping && applier->first == NULL && !applier->sweep_pending && !applier->learn_pending) {
        uint64_t now_ms = kv_clock_ms();
        if (applier->trim) {
            trim(applier);
            continue;
        }
        if (applier->generation == NULL) {
            applier->resting = true;
            pthread_cond_wait(&applier->changed, &applier->mutex);
            applier->resting = false;
            continue;
        }
        if (applier->retry_ms <= now_ms)
            return;
        kv_clock_wait(&applier->changed, &applier->mutex, applier->retry_ms * 1000000);
    }
}

/* One piece of each kind of work, so that none starves the others; sweeping when there is nothing else, and now and then between
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
        jobs = applier_take_group(applier, &count);
        applier->staging = true;
    }
    pthread_mutex_unlock(&applier->mutex);
    if (stopping)
        return false;
    if (generation != NULL)
        run_generation(applier, generation);
    if (jobs != NULL)
        applier_run_group(applier, jobs, count);
    applier->groups += jobs != NULL;
    if (generation == NULL && applier->sweep_pending && (jobs == NULL || applier->groups >= APPLIER_SWEEP_GROUPS))
        run_sweep(applier);
    if (applier->learn_pending)
        run_learn(applier);
    return true;
}

static void *run(void *arg)
{
    /* From here: another thread's name is a file in /proc, which a confined shard cannot open. */
    pthread_setname_np(pthread_self(), "kv-applier");
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
    pthread_cond_init(&applier->changed, NULL);
    pthread_mutex_init(&applier->mutex, NULL);
    if (applier->event_fd < 0 || pthread_create(&applier->thread, NULL, run, applier) != 0)
        kv_fatal("cannot start the applier: %m");
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
    applier_free_jobs(applier->first);
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

void applier_trim(struct applier *applier)
{
    pthread_mutex_lock(&applier->mutex);
    applier->trim = true;
    pthread_cond_signal(&applier->changed);
    pthread_mutex_unlock(&applier->mutex);
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
