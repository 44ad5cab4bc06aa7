/* shard/journal_thread.c -- the journal thread: when to write, and what to have ready.
 * Does:     takes all that was submitted while it last wrote, has it written (journal_groups.c), reports the position; between groups
 *           it recycles released segments and makes and zeroes spares.
 * Owns:     the files and struct journal_writer.
 * Promises: making a spare stands in the way of a waiting group only when there is none.
 * Fails:    any error of a write, flush or rename: `failed`, for good, and the thread ends.
 * Tests:    unit/shard/test_journal.c. */
#include <string.h>
#include <unistd.h>

#include "journal_internal.h"
#include "kv/clock.h"
#include "kv/log.h"

/* ---- reports ----------------------------------------------------------------------------------------------------- */

static void ring(struct journal *journal)
{
    uint64_t one = 1;
    ssize_t ignored = write(journal->event_fd, &one, sizeof one); /* full means: rung already */
    (void)ignored;
}

void journal_fail(struct journal *journal, enum kv_err err, const char *what)
{
    kv_error("journal: %s failed (%s); nothing more is acknowledged", what, kv_err_text(err));
    atomic_store_explicit(&journal->failed, true, memory_order_release);
    ring(journal);
}

void journal_publish(struct journal *journal)
{
    struct journal_writer *writer = &journal->writer;
    uint64_t spares = 0;
    for (size_t i = 0; i < writer->dir.spare_count; i++)
        spares += writer->dir.spares[i].bytes >= writer->dir.segment_bytes;
    pthread_mutex_lock(&journal->mutex);
    journal->rest_bytes = writer->fd < 0 ? 0 : writer->segment_bytes - writer->offset;
    journal->spares = spares;
    journal->full = writer->full;
    kv_histogram_merge(&journal->stats.group_records, &writer->done.group_records);
    kv_histogram_merge(&journal->stats.group_bytes, &writer->done.group_bytes);
    kv_histogram_merge(&journal->stats.write_ns, &writer->done.write_ns);
    kv_histogram_merge(&journal->stats.flush_ns, &writer->done.flush_ns);
    if (writer->done.flush_ns_max > journal->stats.flush_ns_max)
        journal->stats.flush_ns_max = writer->done.flush_ns_max;
    journal->stats.segments = writer->dir.segment_count;
    pthread_mutex_unlock(&journal->mutex);
    memset(&writer->done, 0, sizeof writer->done);
}

/* ---- what both files ask -------------------------------------------------------------------------------------------- */

uint64_t journal_released(struct journal *journal)
{
    pthread_mutex_lock(&journal->mutex);
    uint64_t released = journal->released;
    pthread_mutex_unlock(&journal->mutex);
    return released;
}

void journal_wait_until(struct journal *journal, uint64_t deadline_ms)
{
    if (deadline_ms == UINT64_MAX)
        pthread_cond_wait(&journal->wake, &journal->mutex);
    else
        kv_clock_wait(&journal->wake, &journal->mutex, deadline_ms * 1000000);
}

/* ---- the thread -------------------------------------------------------------------------------------------------- */

/* Takes what was submitted; false: nothing was. */
static bool take(struct journal *journal)
{
    struct journal_queue *taken = &journal->writer.taken;
    pthread_mutex_lock(&journal->mutex);
    struct journal_queue empty = *taken;
    *taken = journal->submitted;
    journal->submitted = empty;
    pthread_mutex_unlock(&journal->mutex);
    return taken->records > 0;
}

static enum kv_err make_spare(struct journal *journal)
{
    struct journal_writer *writer = &journal->writer;
    if (writer->dir.spare_count >= JOURNAL_SPARES_READY) {
        writer->full = false;
        return KV_NOT_FOUND;
    }
    if (kv_clock_ms() < writer->spare_retry_ms)
        return KV_NOT_FOUND;
    enum kv_err err = journal_dir_add_spare(&writer->dir, writer->dir.segment_bytes);
    if (err == KV_NO_SPACE && !writer->full)
        kv_warn("journal: the disk is full; no spare segment can be made");
    writer->full = err == KV_NO_SPACE;
    writer->spare_retry_ms = writer->full ? kv_clock_ms() + JOURNAL_SPARE_RETRY_MS : 0;
    return writer->full ? KV_NOT_FOUND : err;
}

/* One small piece of work ahead of need. KV_NOT_FOUND: there is none. */
static enum kv_err housekeeping(struct journal *journal)
{
    enum kv_err err = journal_dir_recycle(&journal->writer.dir, journal_released(journal));
    if (err == KV_NOT_FOUND)
        err = make_spare(journal);
    if (err == KV_NOT_FOUND) {
        err = journal_dir_zero_step(&journal->writer.dir);
        if (err == KV_NO_SPACE) /* a filesystem whose allocation is no promise: what will not be zeroed is not used */
            err = KV_IO;
    }
    journal_publish(journal);
    return err;
}

/* Under load, housekeeping goes on between groups while the next segment is not ready to be written. */
static bool is_urgent(const struct journal_writer *writer)
{
    size_t ready = 0;
    for (size_t i = 0; i < writer->dir.spare_count; i++)
        ready += writer->dir.spares[i].zeroed == writer->dir.spares[i].bytes;
    return ready < 2;
}

static enum kv_err write_turn(struct journal *journal)
{
    enum kv_err err = journal_write_taken(journal);
    if (err != KV_OK)
        return err;
    ring(journal);
    if (is_urgent(&journal->writer))
        err = housekeeping(journal);
    return err == KV_NOT_FOUND ? KV_OK : err;
}

static uint64_t flush_due_ms(const struct journal *journal)
{
    const struct journal_writer *writer = &journal->writer;
    return writer->flushed == writer->written ? UINT64_MAX : writer->dirty_since_ms + journal->flush_interval_ms;
}

static void idle(struct journal *journal, uint64_t released)
{
    struct journal_writer *writer = &journal->writer;
    uint64_t deadline_ms = flush_due_ms(journal);
    if (writer->full && writer->spare_retry_ms < deadline_ms)
        deadline_ms = writer->spare_retry_ms;
    pthread_mutex_lock(&journal->mutex);
    if (journal->submitted.records == 0 && !journal->stop && journal->released == released) {
        journal->resting = true;
        journal_wait_until(journal, deadline_ms);
        journal->resting = false;
        while (journal->borrowed) {
            journal->awaited = true;
            pthread_cond_wait(&journal->wake, &journal->mutex);
        }
        journal->awaited = false;
    }
    pthread_mutex_unlock(&journal->mutex);
}

static bool is_stopping(struct journal *journal)
{
    pthread_mutex_lock(&journal->mutex);
    bool stop = journal->stop && journal->submitted.records == 0;
    pthread_mutex_unlock(&journal->mutex);
    return stop;
}

/* KV_CANCELLED: closed, all is flushed; or the loop's own write has failed. */
static enum kv_err turn(struct journal *journal)
{
    uint64_t released = journal_released(journal);
    if (journal_failed(journal))
        return KV_CANCELLED; /* on the loop: what failed is not tried again here */
    if (kv_clock_ms() >= flush_due_ms(journal)) {
        enum kv_err err = journal_flush_segment(journal);
        if (err != KV_OK)
            return err;
    }
    if (take(journal))
        return write_turn(journal);
    if (is_stopping(journal)) {
        enum kv_err err = journal_flush_segment(journal);
        return err == KV_OK ? KV_CANCELLED : err;
    }
    enum kv_err err = housekeeping(journal);
    if (err != KV_NOT_FOUND)
        return err;
    idle(journal, released);
    return KV_OK;
}

void *journal_run(void *arg)
{
    struct journal *journal = arg;
    enum kv_err err;
    /* From here: another thread's name is a file in /proc, which a confined shard cannot open. */
    pthread_setname_np(pthread_self(), "kv-journal");
    if (journal->writer.fd >= 0)
        journal_set_direct(&journal->writer, journal->flush);
    do
        err = turn(journal);
    while (err == KV_OK);
    if (err != KV_CANCELLED)
        journal_fail(journal, err, "a write or flush");
    return NULL;
}
