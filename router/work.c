/* router/work.c -- see work.h.
 * The way of a job: waiting -> admitted (a message makes its loop copy a chunk) -> queued -> encoded -> a message -> … -> on_done;
 * with a file: queued -> encoded -> queued again, or parked until more has arrived -> … -> a message -> on_done.
 * It is in one place at a time, so only the two queues and the sum need the lock. */
#include "work.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "digest.h"
#include "kv/buf.h"
#include "kv/log.h"
#include "rest.h"

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
    size_t job_count;       /* submitted and not let go of */
    uint64_t content_bytes; /* begun and not let go of */
    bool stopping;
    /* the thread's alone */
    bool worked; /* since it gave things back */
    struct codec *codec;
    struct kv_buf content; /* of a file, as read */
    struct kv_buf frames;  /* of a file: one that zstd made, on its way back */
};

enum { NICE = 10 }; /* a loop that wants the core gets it */

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

/* Of the next step. */
static size_t chunk_bytes(const struct work_job *job)
{
    size_t left = job->content.bytes - job->taken;
    return left < WORK_CHUNK_BYTES ? left : WORK_CHUNK_BYTES;
}

static bool is_ready(const struct work_job *job)
{
    return job->cancelled || job->arrived - job->taken >= chunk_bytes(job);
}

/* With the lock held. */
static void go_on(struct work *work, struct work_job *job)
{
    job->parked = !is_ready(job);
    if (job->parked)
        return;
    queue_put(&work->chunks, job);
    pthread_cond_signal(&work->changed);
}

/* ---- the thread --------------------------------------------------------------------------------------------------- */

static void begin(struct work *work, struct work_job *job)
{
    job->digest = digest_new();
    codec_writer_begin(&job->writer, work->codec, job->content.bytes, &job->stored,
                       job->file == NULL ? &job->stored : &work->frames);
}

static void encode(struct work_job *job, struct kv_slice content)
{
    for (size_t at = 0; at < content.bytes; at += KV_CONTENT_FRAME_BYTES) {
        size_t left = content.bytes - at;
        size_t bytes = left < KV_CONTENT_FRAME_BYTES ? left : KV_CONTENT_FRAME_BYTES;
        codec_writer_add(&job->writer, kv_slice(content.data + at, bytes));
    }
    digest_add(job->digest, content);
}

/* The next part of the content. In a file in memory it is where it is, of others it is read. */
static enum kv_err next_content(struct work *work, const struct work_job *job, struct kv_slice *out)
{
    uint64_t offset = job->file_offset + job->taken;
    size_t bytes = chunk_bytes(job);
    const uint8_t *there = body_file_peek(job->file, offset, bytes);
    enum kv_err err = KV_OK;
    work->content.bytes = 0;
    if (there == NULL)
        err = body_file_read(job->file, offset, kv_buf_reserve(&work->content, bytes), bytes);
    if (err == KV_OK)
        *out = kv_slice(there != NULL ? there : work->content.data, bytes);
    return err;
}

/* Frames never overtake what is still to be read. */
static enum kv_err store_frame(const struct work_job *job, uint64_t offset, struct kv_slice frame)
{
    uint8_t *there = body_file_peek(job->file, offset, frame.bytes);
    if (there == NULL)
        return body_file_write(job->file, offset, frame.data, frame.bytes);
    memmove(there, frame.data, frame.bytes);
    return KV_OK;
}

/* The next part of a file becomes frames. Raw ones at the place where they were read are there already. */
static enum kv_err encode_from_file(struct work *work, struct work_job *job)
{
    struct kv_slice content, part;
    enum kv_err err = next_content(work, job, &content);
    if (err == KV_OK)
        digest_add(job->digest, content); /* before frames come over it */
    for (; err == KV_OK && content.bytes > 0;
         content = kv_slice(content.data + part.bytes, content.bytes - part.bytes)) {
        uint64_t frame_at = job->writer.frame_bytes;
        part = kv_slice(content.data, content.bytes < KV_CONTENT_FRAME_BYTES ? content.bytes : KV_CONTENT_FRAME_BYTES);
        struct kv_slice frame = codec_writer_make(&job->writer, part);
        if (frame.data != part.data || frame_at != job->taken)
            err = store_frame(job, job->file_offset + frame_at, frame);
        job->taken += part.bytes;
    }
    return err;
}

/* True: the job is through, or nobody wants it any more. One that failed passes over the rest: who has it hears of that at the end, since
 * before nobody may have it. */
static bool step_in_file(struct work *work, struct work_job *job)
{
    if (job->cancelled)
        return true;
    if (job->digest == NULL)
        begin(work, job);
    size_t end = job->taken + chunk_bytes(job);
    if (job->err == KV_OK)
        job->err = encode_from_file(work, job);
    job->taken = end;
    if (end < job->content.bytes)
        return false;
    if (job->err == KV_OK)
        body_file_forget(job->file, job->file_offset + job->writer.frame_bytes,
                         job->content.bytes - job->writer.frame_bytes);
    return true;
}

/* Works off one part of a job; true: its loop shall hear of it. */
static bool step(struct work *work, struct work_job *job)
{
    if (job->file != NULL)
        return step_in_file(work, job);
    encode(job, kv_buf_peek(&job->chunk));
    job->chunk.bytes = 0;
    return true;
}

static void give_back(struct work *work)
{
    codec_trim(work->codec);
    kv_buf_free(&work->content);
    kv_buf_free(&work->frames);
    kv_trim();
}

static void *thread_main(void *arg)
{
    struct work *work = arg;
    pthread_setname_np(pthread_self(), "kv-codec");
    setpriority(PRIO_PROCESS, 0, NICE); /* 0: of this thread; refused is no harm */
    pthread_mutex_lock(&work->lock);
    while (!work->stopping) {
        struct work_job *job = queue_take(&work->chunks);
        if (job == NULL && rest_wait(&work->changed, &work->lock, &work->worked)) {
            pthread_mutex_unlock(&work->lock);
            give_back(work);
            pthread_mutex_lock(&work->lock);
        }
        if (job == NULL)
            continue;
        work->worked = true;
        pthread_mutex_unlock(&work->lock);
        bool tell = step(work, job);
        if (tell)
            h2o_multithread_send_message(job->receiver, &job->message);
        pthread_mutex_lock(&work->lock);
        if (!tell)
            go_on(work, job);
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
    kv_buf_free(&old->content);
    kv_buf_free(&old->frames);
    free(old);
    *work = NULL;
}

/* ---- the loops ---------------------------------------------------------------------------------------------------- */

/* Begins waiting jobs, in their order, while there is room. With the lock held. */
static void admit(struct work *work)
{
    struct work_job *job;
    while ((job = work->waiting.first) != NULL &&
           (work->content_bytes == 0 || work->content_bytes + job->bytes_in_memory <= WORK_CONTENT_BYTES_MAX)) {
        queue_take(&work->waiting);
        work->waiting_count--;
        work->content_bytes += job->bytes_in_memory;
        if (job->file == NULL)
            h2o_multithread_send_message(job->receiver, &job->message);
        else
            go_on(work, job);
    }
}

enum kv_err work_submit(struct work *work, struct work_job *job)
{
    enum kv_err err = KV_OVERLOADED;
    kv_assert(job->content.bytes > 0);
    job->work = work;
    job->bytes_in_memory = job->file == NULL ? job->content.bytes : 0;
    job->arrived = job->arriving ? 0 : job->content.bytes;
    pthread_mutex_lock(&work->lock);
    if (work->waiting_count < WORK_JOBS_MAX) {
        queue_put(&work->waiting, job);
        work->waiting_count++;
        work->job_count++;
        admit(work);
        err = KV_OK;
    }
    pthread_mutex_unlock(&work->lock);
    return err;
}

/* With the lock held. */
static void unpark(struct work_job *job)
{
    if (job->parked)
        go_on(job->work, job);
}

void work_arrived(struct work_job *job, size_t bytes)
{
    kv_assert(bytes >= job->arrived && bytes <= job->content.bytes);
    pthread_mutex_lock(&job->work->lock);
    job->arrived = bytes;
    unpark(job);
    pthread_mutex_unlock(&job->work->lock);
}

void work_cancel(struct work_job *job)
{
    job->cancelled = true;
    job->content.data = NULL; /* whoever looks at it now crashes at once */
    pthread_mutex_lock(&job->work->lock);
    unpark(job);
    pthread_mutex_unlock(&job->work->lock);
}

void work_let_go(struct work *work, const struct work_job *job)
{
    pthread_mutex_lock(&work->lock);
    kv_assert(work->content_bytes >= job->bytes_in_memory);
    kv_assert(work->job_count > 0);
    work->job_count--;
    work->content_bytes -= job->bytes_in_memory;
    admit(work);
    pthread_mutex_unlock(&work->lock);
}

struct work_load work_load(struct work *work)
{
    pthread_mutex_lock(&work->lock);
    struct work_load load = {work->job_count, work->waiting_count, work->content_bytes};
    pthread_mutex_unlock(&work->lock);
    return load;
}

static void feed(struct work_job *job)
{
    struct work *work = job->work;
    size_t bytes = chunk_bytes(job);
    if (job->digest == NULL)
        begin(work, job);
    kv_buf_append(&job->chunk, kv_slice(job->content.data + job->taken, bytes));
    job->taken += bytes;
    pthread_mutex_lock(&work->lock);
    go_on(work, job);
    pthread_mutex_unlock(&work->lock);
}

static void finish(struct work_job *job)
{
    if (!job->cancelled && job->err == KV_OK) {
        job->hash = digest_end(job->digest);
        job->codec = codec_writer_end(&job->writer);
        job->stored_bytes = codec_index_bytes(job->content.bytes) + job->writer.frame_bytes;
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
        if (job->cancelled || job->file != NULL || job->taken == job->content.bytes)
            finish(job);
        else
            feed(job);
    }
}
