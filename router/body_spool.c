/* router/body_spool.c -- what takes long with the files of body_file.h, on a thread of its own: kv-spool.
 * Does:     files on the disk grow ahead of what comes: zeros are written, so that a loop finds pages when it fills them. Whoever makes
 *           pages of a file waits for memory, and for the disk when too much of what was written has not arrived there.
 *           Files that nobody holds end: the kernel takes a tenth of a second for one of 1 GiB. Those in memory wait for the
 *           next bodies instead, with their mapping: pages that are there cost a third of fresh ones.
 * Tests:    unit/router/test_body_file.c, http/test_http_bodies.c. */
#include "body_file_internal.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#include <utlist.h>

#include "kv/log.h"

enum {
    NICE = 10,
    QUICK_BYTES = 1 << 20,  /* a file up to this ends within 0.1 ms */
    STEP_BYTES = 256 << 10, /* what a file grows by before it is the next one's turn */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_once_t once;
    struct body_file *growing; /* utlists */
    struct body_file *ending;
    struct body_file *spare; /* the one of the least past first */
    uint64_t spare_bytes;
    bool stalled; /* by a test */
} spool = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .once = PTHREAD_ONCE_INIT};

/* ---- the thread --------------------------------------------------------------------------------------------------- */

/* False: it has what is wanted, or there is no room. What is taken ahead may not be what others need now: it counts as a new file. */
static bool grow(struct body_file *file, uint64_t wanted)
{
    static const uint8_t zeros[STEP_BYTES];
    pthread_mutex_lock(&file->extends);
    uint64_t length = file->length;
    uint64_t bytes = wanted <= length ? 0 : wanted - length < STEP_BYTES ? wanted - length : STEP_BYTES;
    bool grown = bytes > 0 && body_file_claim(file, bytes, true) == KV_OK;
    if (grown && body_file_write(file, length, zeros, bytes) != KV_OK) {
        body_file_disclaim(file, bytes); /* who needs it asks himself, and is told why */
        grown = false;
    }
    if (grown)
        file->length = length + bytes;
    pthread_mutex_unlock(&file->extends);
    return grown;
}

/* What the kernel keeps of a file goes with its last descriptor and mapping. */
static void end(struct body_file *file)
{
    if (file->map != NULL)
        munmap(file->map, file->map_bytes);
    close(file->fd);
    pthread_mutex_destroy(&file->extends);
    free(file);
}

/* Of these two: with the lock held, which they let go of meanwhile. */
static void grow_first(void)
{
    struct body_file *file = spool.growing;
    uint64_t wanted = file->length_wanted;
    DL_DELETE(spool.growing, file);
    pthread_mutex_unlock(&spool.lock);
    bool grown = grow(file, wanted);
    pthread_mutex_lock(&spool.lock);
    if (grown && file->holders > 1) {
        DL_APPEND(spool.growing, file);
        return;
    }
    file->grows = false;
    pthread_mutex_unlock(&spool.lock);
    body_file_free(&file);
    pthread_mutex_lock(&spool.lock);
}

static void end_first(void)
{
    struct body_file *file = spool.ending;
    DL_DELETE(spool.ending, file);
    pthread_mutex_unlock(&spool.lock);
    end(file);
    pthread_mutex_lock(&spool.lock);
}

/* Ends with the process. */
static void *thread_main(void *arg)
{
    pthread_setname_np(pthread_self(), "kv-spool"); /* another's name is a file in /proc: confine.h */
    setpriority(PRIO_PROCESS, 0, NICE);             /* 0: of this thread; refused is no harm */
    pthread_mutex_lock(&spool.lock);
    for (;;) {
        if (spool.stalled)
            pthread_cond_wait(&spool.changed, &spool.lock);
        else if (spool.growing != NULL)
            grow_first();
        else if (spool.ending != NULL)
            end_first();
        else
            pthread_cond_wait(&spool.changed, &spool.lock);
    }
    return arg;
}

static void start_thread(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, thread_main, NULL) != 0)
        kv_fatal("cannot start the thread kv-spool");
    pthread_detach(thread);
}

static void lock(void)
{
    pthread_once(&spool.once, start_thread);
    pthread_mutex_lock(&spool.lock);
}

#ifdef KV_TESTS
void body_files_stall(bool stalled)
{
    lock();
    spool.stalled = stalled;
    pthread_cond_signal(&spool.changed);
    pthread_mutex_unlock(&spool.lock);
}
#endif

/* ---- growing ------------------------------------------------------------------------------------------------------ */

void body_file_extend_soon(struct body_file *file, uint64_t bytes)
{
    kv_assert(!file->in_memory);
    lock();
    file->length_wanted = bytes;
    if (!file->grows && file->length < bytes) {
        file->grows = true;
        body_file_hold(file);
        DL_APPEND(spool.growing, file);
        pthread_cond_signal(&spool.changed);
    }
    pthread_mutex_unlock(&spool.lock);
}

bool body_file_grows(const struct body_file *file)
{
    return file->grows;
}

/* ---- ending, and waiting for the next body ------------------------------------------------------------------------ */

/* Of the next three: with the lock held. */
static void end_soon(struct body_file *file)
{
    if (file->bytes <= QUICK_BYTES) {
        end(file);
        return;
    }
    DL_APPEND(spool.ending, file);
    pthread_cond_signal(&spool.changed);
}

static void leave_spare(struct body_file *file)
{
    DL_DELETE(spool.spare, file);
    spool.spare_bytes -= file->bytes;
}

static void trim_spare(uint64_t bytes_max)
{
    while (spool.spare_bytes > bytes_max) {
        struct body_file *oldest = spool.spare->prev;
        leave_spare(oldest);
        end_soon(oldest);
    }
}

/* A shard that may still read would read the next body. */
static bool may_serve_again(const struct body_file *file)
{
    return file->in_memory && file->lent == 0 && file->map != NULL && file->map_bytes == file->bytes;
}

void spool_leave(struct body_file *file)
{
    lock();
    if (may_serve_again(file)) {
        DL_PREPEND(spool.spare, file);
        spool.spare_bytes += file->bytes;
        trim_spare(BODY_FILE_SPARE_SUM_MAX);
    } else {
        end_soon(file);
    }
    pthread_mutex_unlock(&spool.lock);
}

struct body_file *spool_take(uint64_t bytes)
{
    struct body_file *file, *found = NULL;
    pthread_mutex_lock(&spool.lock);
    DL_FOREACH(spool.spare, file)
        if (file->bytes >= bytes && (found == NULL || file->bytes < found->bytes))
            found = file;
    if (found != NULL)
        leave_spare(found);
    pthread_mutex_unlock(&spool.lock);
    return found;
}

void body_files_trim(void)
{
    lock();
    trim_spare(0);
    pthread_mutex_unlock(&spool.lock);
}
