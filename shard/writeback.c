/* shard/writeback.c -- see writeback.h. The mutex is held while the kernel starts the writes, so that the end waits for that. */
#include "writeback.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "kv/buf.h"
#include "kv/clock.h"
#include "kv/log.h"

struct writeback {
    void (*start_writing)(int fd);
    pthread_t thread;
    bool running;

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    int fd; /* -1: nothing is being committed */
    bool stop;
};

/* No flag that waits: that would take an error from LMDB's flush. */
static void start_kernel(int fd)
{
    int ignored = sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    (void)ignored; /* where it is not known, the flush writes all */
}

struct writeback *writeback_new(void (*start_writing)(int fd))
{
    struct writeback *writeback = kv_alloc_zero(1, sizeof *writeback);
    writeback->start_writing = start_writing != NULL ? start_writing : start_kernel;
    writeback->fd = -1;
    pthread_cond_init(&writeback->changed, NULL);
    pthread_mutex_init(&writeback->mutex, NULL);
    return writeback;
}

static void *run(void *arg)
{
    struct writeback *writeback = arg;
    pthread_setname_np(pthread_self(), "kv-writeback");
    pthread_mutex_lock(&writeback->mutex);
    while (!writeback->stop) {
        if (writeback->fd < 0) {
            pthread_cond_wait(&writeback->changed, &writeback->mutex);
            continue;
        }
        kv_clock_wait(&writeback->changed, &writeback->mutex, kv_clock_ns() + WRITEBACK_MS * 1000000u);
        if (writeback->fd >= 0 && !writeback->stop)
            writeback->start_writing(writeback->fd);
    }
    pthread_mutex_unlock(&writeback->mutex);
    return NULL;
}

void writeback_begin(struct writeback *writeback, int fd)
{
    pthread_mutex_lock(&writeback->mutex);
    kv_assert(writeback->fd < 0);
    writeback->fd = fd;
    pthread_cond_signal(&writeback->changed);
    pthread_mutex_unlock(&writeback->mutex);
    if (!writeback->running && pthread_create(&writeback->thread, NULL, run, writeback) != 0)
        kv_fatal("cannot start the thread that writes back");
    writeback->running = true;
}

void writeback_end(struct writeback *writeback)
{
    pthread_mutex_lock(&writeback->mutex);
    kv_assert(writeback->fd >= 0);
    writeback->fd = -1;
    pthread_mutex_unlock(&writeback->mutex);
}

void writeback_free(struct writeback **writeback_at)
{
    struct writeback *writeback = *writeback_at;
    if (writeback == NULL)
        return;
    pthread_mutex_lock(&writeback->mutex);
    writeback->stop = true;
    pthread_cond_signal(&writeback->changed);
    pthread_mutex_unlock(&writeback->mutex);
    if (writeback->running)
        pthread_join(writeback->thread, NULL);
    pthread_mutex_destroy(&writeback->mutex);
    pthread_cond_destroy(&writeback->changed);
    free(writeback);
    *writeback_at = NULL;
}
