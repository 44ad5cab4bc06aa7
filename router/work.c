/* router/work.c -- see work.h.
 * The way of a job: waiting -> admitted (a message makes its loop copy a chunk) -> queued -> encoded -> a message -> … -> on_done.
 * It is in one place at a time, so only the two queues and the sum need the lock. */
#include "work.h"

#include <pthread.h>
#include <stdlib.h>

#include "digest.h"
#include "kv/log.h"

struct queue {
    struct work_job *first;
    struct work_job **last;
};

struct work {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct queue waiting; /* not begun */
    struct queue chunks;  /* with a chunk to encode */
    size_t waiting_count;
    uint64_t content_bytes; /* begun and not let go of */
    bool stopping;
    struct codec *codec; /* the thread's alone */
};

static void queue_init(struct queue *queue)
{
    queue->first = NULL;
    queue->last = &queue->first;
}

static void queue_put(struct queue *queue, struct work_job *job)
{
    job->next = NULL;
    *queue->last = job;
    queue->last = &job->next;
}

static struct work_job *queue_take(struct queue *queue)
{
    struct work_job *job = queue->first;
    if (job == NULL)
        return NULL;
    queue->first = job->next;
    if (queue->first == NULL)
        queue->last = &queue->first;
    return job;
}

/* ---- the thread --------------------------------------------------------------------------------------------------- */

static void encode_chunk(struct work_job *job)
{
    for (size_t at = 0; at < job->chunk.bytes; at += KV_CONTENT_FRAME_BYTES) {
        size_t left = job->chunk.bytes - at;
        size_t bytes = left < KV_CONTENT_FRAME_BYTES ? left : KV_CONTENT_FRAME_BYTES;
        codec_writer_add(&job->writer, kv_slice(job->chunk.data + at, bytes));
    }
    digest_add(job->digest, kv_buf_peek(&job->chunk));
    job->chunk.bytes = 0;
}

static void *thread_main(void *arg)
{
    struct work *work = arg;
    pthread_setname_np(pthread_self(), "kv-codec");
    pthread_mutex_lock(&work->lock);
    while (!work->stopping) {
        struct work_job *job = queue_take(&work->chunks);
        if (job == NULL) {
            pthread_cond_wait(&work->changed, &work->lock);
            continue;
        }
        pthread_mutex_unlock(&work->lock);
        encode_chunk(job);
        h2o_multithread_send_message(job->receiver, &job->message);
        pthread_mutex_lock(&work->lock);
    }
    pthread_mutex_unlock(&work->lock);
    return NULL;
}

struct work *work_new(int compression_level)
{
    struct work *work = kv_alloc_zero(1, sizeof(*work));
    pthread_mutex_init(&work->lock, NULL);
    pthread_cond_init(&work->changed, NULL);
    queue_init(&work->waiting);
    queue_init(&work->chunks);
    work->codec = codec_new(compression_level);
    if (pthread_create(&work->thread, NULL, thread_main, work) != 0)
        kv_fatal("cannot start the thread kv-codec");
    return work;
}

void work_free(struct work **work)
{
    struct work *old = *work;
    if (old == NULL)
        return;
    pthread_mutex_lock(&old->lock);
    old->stopping = true;
    pthread_cond_signal(&old->changed);
    pthread_mutex_unlock(&old->lock);
    pthread_join(old->thread, NULL);
    pthread_cond_destroy(&old->changed);
    pthread_mutex_destroy(&old->lock);
    codec_free(&old->codec);
    free(old);
    *work = NULL;
}

/* ---- the loops ---------------------------------------------------------------------------------------------------- */

/* Begins waiting jobs, in their order, while there is room. With the lock held. */
static void admit(struct work *work)
{
    struct work_job *job;
    while ((job = work->waiting.first) != NULL &&
           (work->content_bytes == 0 || work->content_bytes + job->content.bytes <= WORK_CONTENT_BYTES_MAX)) {
        queue_take(&work->waiting);
        work->waiting_count--;
        work->content_bytes += job->content.bytes;
        h2o_multithread_send_message(job->receiver, &job->message);
    }
}

enum kv_err work_submit(struct work *work, struct work_job *job)
{
    enum kv_err err = KV_OVERLOADED;
    kv_assert(job->content.bytes > 0);
    job->work = work;
    pthread_mutex_lock(&work->lock);
    if (work->waiting_count < WORK_JOBS_MAX) {
        queue_put(&work->waiting, job);
        work->waiting_count++;
        admit(work);
        err = KV_OK;
    }
    pthread_mutex_unlock(&work->lock);
    return err;
}

void work_cancel(struct work_job *job)
{
    job->cancelled = true;
    job->content.data = NULL; /* whoever looks at it now crashes at once */
}

void work_let_go(struct work *work, const struct work_job *job)
{
    pthread_mutex_lock(&work->lock);
    kv_assert(work->content_bytes >= job->content.bytes);
    work->content_bytes -= job->content.bytes;
    admit(work);
    pthread_mutex_unlock(&work->lock);
}

static void feed(struct work_job *job)
{
    struct work *work = job->work;
    size_t left = job->content.bytes - job->copied;
    size_t bytes = left < WORK_CHUNK_BYTES ? left : WORK_CHUNK_BYTES;
    if (job->digest == NULL) {
        job->digest = digest_new();
        codec_writer_begin(&job->writer, work->codec, job->content.bytes, &job->stored);
    }
    kv_buf_append(&job->chunk, kv_slice(job->content.data + job->copied, bytes));
    job->copied += bytes;
    pthread_mutex_lock(&work->lock);
    queue_put(&work->chunks, job);
    pthread_cond_signal(&work->changed);
    pthread_mutex_unlock(&work->lock);
}

static void finish(struct work_job *job)
{
    if (!job->cancelled) {
        job->hash = digest_end(job->digest);
        job->codec = codec_writer_end(&job->writer);
    }
    digest_free(&job->digest);
    kv_buf_free(&job->chunk);
    job->on_done(job);
}

void work_on_messages(h2o_multithread_receiver_t *receiver, h2o_linklist_t *messages)
{
    (void)receiver;
    while (!h2o_linklist_is_empty(messages)) {
        struct work_job *job = H2O_STRUCT_FROM_MEMBER(struct work_job, message.link, messages->next);
        h2o_linklist_unlink(&job->message.link);
        if (job->cancelled || job->copied == job->content.bytes)
            finish(job);
        else
            feed(job);
    }
}
