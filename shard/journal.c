/* shard/journal.c -- the loop thread's half of the journal: collecting records, asking how far they are, opening and closing.
 * Does:     appends to a buffer that only the loop touches; journal_submit moves it under the mutex and wakes the thread.
 * Owns:     struct journal; the files belong to the thread (journal_thread.c) from journal_open to journal_close, but for the moments
 *           in which journal_write_now borrows them.
 * Promises: nothing here waits for a disk but journal_open, journal_close and journal_write_now.
 * Tests:    unit/shard/test_journal.c. */
#include "journal_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "journal_replay.h"
#include "kv/clock.h"
#include "kv/log.h"

/* What journal_room leaves to others when it counts on disk space that is not allocated yet. */
#define ROOM_MARGIN_SEGMENTS 4u

/* ---- opening and closing ----------------------------------------------------------------------------------------- */

static void init_thread_parts(struct journal *journal)
{
    pthread_cond_init(&journal->wake, NULL);
    pthread_mutex_init(&journal->mutex, NULL);
}

static void release_all(struct journal *journal)
{
    if (journal->writer.fd >= 0)
        close(journal->writer.fd);
    if (journal->event_fd >= 0)
        close(journal->event_fd);
    journal_dir_close(&journal->writer.dir);
    kv_buf_free(&journal->building.bytes);
    kv_buf_free(&journal->submitted.bytes);
    kv_buf_free(&journal->writer.taken.bytes);
    free(journal->writer.staging);
    pthread_cond_destroy(&journal->wake);
    pthread_mutex_destroy(&journal->mutex);
    free(journal);
}

/* Signals are the loop's: the thread's system calls are not interrupted. */
static enum kv_err start_thread(struct journal *journal)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int number = pthread_create(&journal->thread, NULL, journal_run, journal);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (number != 0)
        return KV_IO;
    return KV_OK;
}

static void take_tail(struct journal *journal, const struct journal_tail *tail, uint64_t released)
{
    struct journal_writer *writer = &journal->writer;
    writer->fd = tail->fd;
    writer->offset = tail->offset;
    writer->segment_bytes = tail->segment_bytes;
    writer->seal = tail->seal;
    writer->written = writer->flushed = tail->position;
    journal->position = tail->position;
    journal->released = released;
    atomic_store(&journal->durable, tail->position);
}

enum kv_err journal_open_with(const struct journal_options *options, const struct journal_ops *ops,
                              uint64_t segment_bytes, journal_on_record on_record, void *ctx, char *why,
                              size_t why_bytes, struct journal **out)
{
    struct journal *journal = kv_alloc_zero(1, sizeof *journal);
    struct journal_tail tail;
    journal->flush = options->flush;
    journal->flush_interval_ms = options->flush_interval_ms;
    journal->writer.fd = journal->writer.dir.fd = -1;
    init_thread_parts(journal);
    journal->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    enum kv_err err = journal->event_fd < 0 ? KV_IO : KV_OK;
    if (err != KV_OK)
        snprintf(why, why_bytes, "no event descriptor for the journal: %s", strerror(errno));
    if (err == KV_OK)
        err = journal_dir_open(options->dir_fd, ops, segment_bytes, why, why_bytes, &journal->writer.dir);
    if (err == KV_OK)
        err = journal_replay(&journal->writer.dir, options->position, on_record, ctx, why, why_bytes, &tail);
    if (err == KV_OK) {
        take_tail(journal, &tail, options->position);
        journal_publish(journal);
        if ((err = start_thread(journal)) != KV_OK)
            snprintf(why, why_bytes, "the journal's thread cannot be started");
    }
    if (err == KV_OK)
        *out = journal;
    else
        release_all(journal);
    return err;
}

/* Segments and spares together are not to take much of a small disk. */
static uint64_t segment_bytes_for(int dir_fd)
{
    struct statvfs disk;
    if (fstatvfs(dir_fd, &disk) != 0)
        return JOURNAL_SEGMENT_BYTES;
    uint64_t share = (uint64_t)disk.f_blocks * disk.f_frsize / JOURNAL_DISK_SHARE;
    uint64_t bytes = share / JOURNAL_BLOCK_BYTES * JOURNAL_BLOCK_BYTES;
    return bytes > JOURNAL_SEGMENT_BYTES       ? JOURNAL_SEGMENT_BYTES
           : bytes < JOURNAL_SEGMENT_BYTES_MIN ? JOURNAL_SEGMENT_BYTES_MIN
                                               : bytes;
}

enum kv_err journal_open(const struct journal_options *options, journal_on_record on_record, void *ctx, char *why,
                         size_t why_bytes, struct journal **out)
{
    return journal_open_with(options, &journal_ops_system, segment_bytes_for(options->dir_fd), on_record, ctx, why,
                             why_bytes, out);
}

void journal_close(struct journal **journal)
{
    if (!*journal)
        return;
    pthread_mutex_lock(&(*journal)->mutex);
    (*journal)->stop = true;
    pthread_cond_signal(&(*journal)->wake);
    pthread_mutex_unlock(&(*journal)->mutex);
    pthread_join((*journal)->thread, NULL);
    release_all(*journal);
    *journal = NULL;
}

/* ---- appending --------------------------------------------------------------------------------------------------- */

uint64_t journal_append(struct journal *journal, uint32_t type, struct kv_slice body)
{
    kv_assert(body.bytes < JOURNAL_SEGMENT_BYTES_MAX / 2);
    uint64_t bytes = JOURNAL_RECORD_HEADER_BYTES + body.bytes;
    uint8_t *at = kv_buf_reserve(&journal->building.bytes, bytes);
    journal_encode_record(type, (uint32_t)body.bytes, at);
    if (body.bytes > 0)
        memcpy(at + JOURNAL_RECORD_HEADER_BYTES, body.data, body.bytes);
    journal->building.bytes.bytes += bytes;
    journal->building.records++;
    if (bytes > journal->record_bytes_max)
        journal->record_bytes_max = bytes;
    return ++journal->position;
}

void journal_submit(struct journal *journal)
{
    struct journal_queue *building = &journal->building;
    if (building->records == 0)
        return;
    pthread_mutex_lock(&journal->mutex);
    journal->queued_bytes += building->bytes.bytes;
    if (journal->submitted.records == 0) { /* the usual case: the buffers change places, nothing is copied */
        struct journal_queue empty = journal->submitted;
        journal->submitted = *building;
        *building = empty;
    } else {
        kv_buf_append(&journal->submitted.bytes, kv_buf_peek(&building->bytes));
        journal->submitted.records += building->records;
    }
    pthread_cond_signal(&journal->wake);
    pthread_mutex_unlock(&journal->mutex);
    building->bytes.bytes = 0;
    building->records = 0;
}

static void trim(struct journal_queue *queue)
{
    if (queue->records == 0)
        kv_buf_free(&queue->bytes);
}

void journal_trim(struct journal *journal)
{
    struct journal_writer *writer = &journal->writer;
    trim(&journal->building);
    pthread_mutex_lock(&journal->mutex);
    trim(&journal->submitted);
    if (journal->resting) { /* then the writer may be touched */
        trim(&writer->taken);
        free(writer->staging);
        writer->staging = NULL;
        writer->staging_bytes = 0;
    }
    pthread_mutex_unlock(&journal->mutex);
}

/* ---- writing on the loop ------------------------------------------------------------------------------------------ */

/* Takes the writer from a resting thread, with what was appended. */
static bool borrow_writer(struct journal *journal)
{
    struct journal_queue *building = &journal->building;
    pthread_mutex_lock(&journal->mutex);
    bool free_now = journal->resting && !journal->stop && journal->submitted.records == 0 &&
                    journal_group_bytes(building->bytes.bytes) <= journal->rest_bytes;
    if (free_now) {
        journal->borrowed = true;
        journal->queued_bytes += building->bytes.bytes;
    }
    pthread_mutex_unlock(&journal->mutex);
    if (!free_now)
        return false;
    struct journal_queue empty = journal->writer.taken; /* a thread that rests has taken nothing */
    journal->writer.taken = *building;
    *building = empty;
    return true;
}

static void return_writer(struct journal *journal)
{
    pthread_mutex_lock(&journal->mutex);
    journal->borrowed = false;
    if (journal->awaited)
        pthread_cond_signal(&journal->wake);
    pthread_mutex_unlock(&journal->mutex);
}

bool journal_write_now(struct journal *journal)
{
    uint64_t begin_ns = kv_clock_ns();
    if (!journal->flush || journal->building.records == 0 || journal->building.bytes.bytes > JOURNAL_NOW_BYTES_MAX ||
        begin_ns / 1000000 < journal->slow_until_ms || journal_failed(journal) || !borrow_writer(journal))
        return false;
    enum kv_err err = journal_write_taken(journal);
    if (err != KV_OK)
        journal_fail(journal, err, "a write or flush");
    uint64_t end_ns = kv_clock_ns();
    if (end_ns - begin_ns > JOURNAL_NOW_NS_MAX)
        journal->slow_until_ms = end_ns / 1000000 + JOURNAL_SLOW_PAUSE_MS;
    return_writer(journal);
    return true;
}

/* ---- room --------------------------------------------------------------------------------------------------------- */

/* Whether `total` bytes of records, none larger than `record_max`, surely fit into the rest of the segment in use or into
 * `spares` further ones. A segment is left when the next record does not fit, so each holds at least all but one. */
static bool fits_allocated(uint64_t total, uint64_t record_max, uint64_t rest, uint64_t spares, uint64_t segment_bytes)
{
    uint64_t usable = segment_bytes - JOURNAL_BLOCK_BYTES;
    uint64_t group = journal_group_bytes(total);
    if (group <= rest || (spares > 0 && group <= usable))
        return true;
    uint64_t lost = journal_group_bytes(record_max) + JOURNAL_BLOCK_BYTES;
    return lost < usable && total <= spares * (usable - lost);
}

bool journal_room(struct journal *journal, uint64_t bytes, bool reserve)
{
    pthread_mutex_lock(&journal->mutex);
    uint64_t queued = journal->queued_bytes, rest = journal->rest_bytes, spares = journal->spares;
    bool full = journal->full;
    pthread_mutex_unlock(&journal->mutex);
    if (queued == 0 && journal->building.records == 0)
        journal->record_bytes_max = 0;
    uint64_t record_max = bytes > journal->record_bytes_max ? bytes : journal->record_bytes_max;
    uint64_t total = queued + journal->building.bytes.bytes + bytes + JOURNAL_BLOCK_BYTES;
    if (!reserve)
        spares = spares > 0 ? spares - 1 : 0;
    if (fits_allocated(total, record_max, rest, spares, journal->writer.dir.segment_bytes))
        return true;
    /* Not allocated yet: the thread is behind, or the record is very large. What the filesystem says decides. */
    uint64_t margin = ROOM_MARGIN_SEGMENTS * journal->writer.dir.segment_bytes;
    return !full && journal->writer.dir.ops->free_bytes(journal->writer.dir.fd) >= 2 * total + margin;
}

void journal_release(struct journal *journal, uint64_t position)
{
    pthread_mutex_lock(&journal->mutex);
    if (position > journal->released) {
        journal->released = position;
        pthread_cond_signal(&journal->wake);
    }
    pthread_mutex_unlock(&journal->mutex);
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

uint64_t journal_durable(const struct journal *journal)
{
    return atomic_load_explicit(&journal->durable, memory_order_acquire);
}

bool journal_failed(const struct journal *journal)
{
    return atomic_load_explicit(&journal->failed, memory_order_acquire);
}

int journal_event_fd(const struct journal *journal)
{
    return journal->event_fd;
}

void journal_stats(struct journal *journal, struct journal_stats *out)
{
    pthread_mutex_lock(&journal->mutex);
    *out = journal->stats;
    journal->stats.flush_ns_max = 0;
    pthread_mutex_unlock(&journal->mutex);
}
