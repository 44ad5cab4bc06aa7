/* router/body_job.c -- see body_job.h. */
#include "body_job.h"

#include <stdlib.h>

#include "kv/log.h"

static __thread struct {
    struct work *work;
    h2o_multithread_receiver_t *receiver;
} own;

void body_job_thread_init(struct work *work, h2o_multithread_receiver_t *receiver)
{
    own.work = work;
    own.receiver = receiver;
}

static void end(struct work_job *job)
{
    kv_buf_free(&job->stored);
    body_file_free(&job->file);
    free(job);
}

static void on_given_up(struct work_job *job)
{
    work_let_go(job->work, job);
    end(job);
}

struct work_job *body_job_new(struct body_file *file, uint64_t offset, size_t bytes)
{
    struct work_job *job = kv_alloc_zero(1, sizeof(*job));
    job->content = kv_slice(NULL, bytes);
    job->file = body_file_hold(file);
    job->file_offset = offset;
    job->arriving = true;
    job->receiver = own.receiver;
    job->on_done = on_given_up;
    if (work_submit(own.work, job) == KV_OK)
        return job;
    end(job);
    return NULL;
}

void body_job_arrived(struct work_job *job, size_t bytes)
{
    size_t most = job->content.bytes - 1;
    bytes = bytes < most ? bytes : most;
    kv_assert(bytes >= job->arrived);
    if (bytes - job->arrived >= KV_CONTENT_FRAME_BYTES) /* not for every few bytes */
        work_arrived(job, bytes);
}

void body_job_free(struct work_job **job)
{
    if (*job != NULL)
        work_cancel(*job);
    *job = NULL;
}
