/* router/task.c -- see task.h. */
#include "task.h"

#include <pthread.h>

#include "kv/buf.h"
#include "kv/log.h"
#include "rest.h"

struct tasks {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct task *first;
    struct task **last;
    unsigned reserved;
    uint64_t reserved_bytes;
    bool worked;         /* the thread's alone: since it gave things back, */
    struct codec *codec; /* and this */
};

static struct task *take(struct tasks *tasks)
{
    pthread_mutex_lock(&tasks->lock);
    while (tasks->first == NULL) {
        if (!rest_wait(&tasks->changed, &tasks->lock, &tasks->worked))
            continue;
        pthread_mutex_unlock(&tasks->lock);
        codec_trim(tasks->codec);
        kv_trim();
        pthread_mutex_lock(&tasks->lock);
    }
    tasks->worked = true;
    struct task *task = tasks->first;
    tasks->first = task->next;
    if (tasks->first == NULL)
        tasks->last = &tasks->first;
    pthread_mutex_unlock(&tasks->lock);
    return task;
}

/* Ends with the process: the router leaves by _exit. */
static void *thread_main(void *arg)
{
    struct tasks *tasks = arg;
    pthread_setname_np(pthread_self(), "kv-batch");
    for (;;) {
        struct task *task = take(tasks);
        task->run(task, tasks->codec);
        h2o_multithread_send_message(task->receiver, &task->message);
    }
    return NULL;
}

struct tasks *tasks_new(int compression_level)
{
    struct tasks *tasks = kv_alloc_zero(1, sizeof(*tasks));
    pthread_mutex_init(&tasks->lock, NULL);
    pthread_cond_init(&tasks->changed, NULL);
    tasks->last = &tasks->first;
    tasks->codec = codec_new(compression_level);
    if (pthread_create(&tasks->thread, NULL, thread_main, tasks) != 0)
        kv_fatal("cannot start the thread kv-batch");
    return tasks;
}

enum kv_err tasks_reserve(struct tasks *tasks, uint64_t bytes)
{
    enum kv_err err = KV_OVERLOADED;
    pthread_mutex_lock(&tasks->lock);
    if (tasks->reserved == 0 || (tasks->reserved < TASKS_MAX && tasks->reserved_bytes + bytes <= TASK_BYTES_MAX)) {
        tasks->reserved++;
        tasks->reserved_bytes += bytes;
        err = KV_OK;
    }
    pthread_mutex_unlock(&tasks->lock);
    return err;
}

void tasks_release(struct tasks *tasks, uint64_t bytes)
{
    pthread_mutex_lock(&tasks->lock);
    kv_assert(tasks->reserved > 0 && tasks->reserved_bytes >= bytes);
    tasks->reserved--;
    tasks->reserved_bytes -= bytes;
    pthread_mutex_unlock(&tasks->lock);
}

uint64_t tasks_load(struct tasks *tasks, uint64_t *bytes)
{
    pthread_mutex_lock(&tasks->lock);
    uint64_t count = tasks->reserved;
    *bytes = tasks->reserved_bytes;
    pthread_mutex_unlock(&tasks->lock);
    return count;
}

void task_submit(struct tasks *tasks, struct task *task)
{
    pthread_mutex_lock(&tasks->lock);
    task->next = NULL;
    *tasks->last = task;
    tasks->last = &task->next;
    pthread_cond_signal(&tasks->changed);
    pthread_mutex_unlock(&tasks->lock);
}

void task_on_messages(h2o_multithread_receiver_t *receiver, h2o_linklist_t *messages)
{
    (void)receiver;
    while (!h2o_linklist_is_empty(messages)) {
        struct task *task = H2O_STRUCT_FROM_MEMBER(struct task, message.link, messages->next);
        h2o_linklist_unlink(&task->message.link);
        task->on_done(task);
    }
}
