/* shard/applier_stage.c -- the applier's second kind of work: pieces of large contents, and ids that are given up. See applier.h. */
#include <stdlib.h>
#include <unistd.h>

#include "applier_internal.h"
#include "kv/clock.h"
#include "kv/log.h"

struct job *applier_take_group(struct applier *applier, size_t *count)
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
    applier_report(applier, (struct applier_result){.kind = APPLIER_STAGED,
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
        applier_report_failure(applier, err, "cannot stage content");
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
        applier_report_failure(applier, err, "cannot give up staged content");
}

void applier_free_jobs(struct job *jobs)
{
    for (struct job *next; jobs != NULL; jobs = next) {
        next = jobs->next;
        if (jobs->piece.file.bytes > 0)
            close(jobs->piece.file.fd);
        free(jobs);
    }
}

void applier_run_group(struct applier *applier, struct job *jobs, size_t count)
{
    if (jobs->kind == JOB_STAGE)
        run_stage(applier, jobs, count);
    else
        run_unstage(applier, jobs, count);
    applier_free_jobs(jobs);
    pthread_mutex_lock(&applier->mutex);
    applier->staging = false;
    pthread_mutex_unlock(&applier->mutex);
}
