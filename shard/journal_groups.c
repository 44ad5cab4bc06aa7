/* shard/journal_groups.c -- the writing half of the journal's files: what was taken, to the disk.
 * Does:     cuts it into groups that fill segments, writes and flushes them; begins a segment in a spare, and waits for one while the
 *           disk is full. With DURABILITY=sync groups are written past the page cache.
 * Promises: a position is reported only after the fdatasync that covers it (DURABILITY=interval: after the write). A segment is
 *           flushed before the next one begins.
 * Fails:    any error of a write, flush or rename is the caller's end. A full disk while making a segment: the group waits, and the
 *           attempt is repeated every second, or when segments are released.
 * Threads:  whoever has the writer (journal_internal.h).
 * Tests:    unit/shard/test_journal.c, unit/shard/test_journal_order.c. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "journal_internal.h"
#include "kv/clock.h"
#include "kv/log.h"

#define BUFFER_BYTES_KEPT (4u * 1024 * 1024) /* a larger buffer is released after use */

/* ---- segments ---------------------------------------------------------------------------------------------------- */

enum kv_err journal_flush_segment(struct journal *journal)
{
    struct journal_writer *writer = &journal->writer;
    if (writer->flushed == writer->written)
        return KV_OK;
    uint64_t begin = kv_clock_ns();
    if (writer->dir.ops->fdatasync(writer->fd) != 0)
        return KV_IO;
    uint64_t took = kv_clock_ns() - begin;
    kv_histogram_add(&writer->done.flush_ns, &kv_histogram_times, took);
    if (took > writer->done.flush_ns_max)
        writer->done.flush_ns_max = took;
    writer->flushed = writer->written;
    return KV_OK;
}

/* Sleeps until segments are released, the journal is closed or a second has passed; false: closed. */
static bool wait_for_space(struct journal *journal, uint64_t released)
{
    uint64_t deadline_ms = kv_clock_ms() + JOURNAL_SPARE_RETRY_MS;
    if (!journal->writer.full)
        kv_warn("journal: the disk is full; writes wait for a free segment");
    journal->writer.full = true;
    journal_publish(journal);
    pthread_mutex_lock(&journal->mutex);
    while (!journal->stop && journal->released == released && kv_clock_ms() < deadline_ms)
        journal_wait_until(journal, deadline_ms);
    bool stop = journal->stop;
    pthread_mutex_unlock(&journal->mutex);
    return !stop;
}

/* A spare of at least `bytes`, whatever it takes. */
static enum kv_err find_spare(struct journal *journal, uint64_t bytes, struct journal_spare *out, int *fd)
{
    struct journal_dir *dir = &journal->writer.dir;
    for (;;) {
        uint64_t released = journal_released(journal);
        enum kv_err err = journal_dir_take_spare(dir, bytes, out, fd);
        if (err != KV_NOT_FOUND)
            return err;
        err = journal_dir_recycle(dir, released);
        if (err == KV_NOT_FOUND)
            err = journal_dir_add_spare(dir, bytes);
        if (err == KV_NO_SPACE && !wait_for_space(journal, released))
            return KV_CANCELLED;
        if (err != KV_OK && err != KV_NO_SPACE)
            return err;
    }
}

void journal_set_direct(struct journal_writer *writer, bool direct)
{
    int flags = fcntl(writer->fd, F_GETFL);
    writer->direct = fcntl(writer->fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT) == 0 && direct;
}

/* Ends the segment in use and opens a spare; `header` is to be written with the first group. */
static enum kv_err begin_segment(struct journal *journal, uint64_t group_bytes, struct journal_spare *spare,
                                 uint8_t *header)
{
    struct journal_writer *writer = &journal->writer;
    enum kv_err err = journal_flush_segment(journal);
    if (err != KV_OK)
        return err;
    if (writer->fd >= 0) {
        close(writer->fd);
        writer->fd = -1;
        writer->dir.segments[writer->dir.segment_count - 1].last = writer->written;
    }
    uint64_t bytes = JOURNAL_BLOCK_BYTES + group_bytes;
    if (bytes < writer->dir.segment_bytes)
        bytes = writer->dir.segment_bytes;
    err = find_spare(journal, bytes, spare, &writer->fd);
    if (err != KV_OK)
        return err;
    struct journal_segment_header fields = {.first = writer->written + 1, .segment_bytes = spare->bytes};
    if (getrandom(fields.salt, sizeof fields.salt, 0) != (ssize_t)sizeof fields.salt)
        return KV_IO;
    journal_encode_segment(&fields, header);
    journal_set_direct(writer, journal->flush);
    writer->seal = journal_seal_of(fields.salt);
    writer->segment_bytes = spare->bytes;
    writer->offset = JOURNAL_BLOCK_BYTES;
    return KV_OK;
}

/* ---- groups ------------------------------------------------------------------------------------------------------ */

static uint64_t first_record_bytes(struct kv_slice rest)
{
    uint32_t type;
    struct kv_slice body;
    kv_assert(journal_decode_record(&rest, &type, &body) == KV_OK);
    return JOURNAL_RECORD_HEADER_BYTES + body.bytes;
}

/* The records at the front of `rest` that fit into `space` bytes as one group. */
static struct kv_slice cut_group(struct kv_slice rest, uint64_t space, uint32_t *records)
{
    uint64_t bytes = 0;
    *records = 0;
    while (bytes < rest.bytes) {
        uint64_t next = bytes + first_record_bytes(kv_slice(rest.data + bytes, rest.bytes - bytes));
        if (journal_group_bytes(next) > space || *records == UINT32_MAX)
            break;
        bytes = next;
        ++*records;
    }
    return kv_slice(rest.data, bytes);
}

/* The group as it will stand on the disk, in memory that a direct write can take. */
static struct iovec stage_group(struct journal_writer *writer, const struct iovec *parts, int count, size_t bytes)
{
    if (writer->staging_bytes < bytes) {
        free(writer->staging);
        writer->staging = aligned_alloc(JOURNAL_BLOCK_BYTES, JOURNAL_DIRECT_BYTES_MAX);
        if (writer->staging == NULL)
            kv_fatal("no memory for the journal's groups");
        writer->staging_bytes = JOURNAL_DIRECT_BYTES_MAX;
    }
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        if (parts[i].iov_len > 0)
            memcpy(writer->staging + at, parts[i].iov_base, parts[i].iov_len);
        at += parts[i].iov_len;
    }
    kv_assert(at == bytes);
    return (struct iovec){writer->staging, bytes};
}

static enum kv_err write_parts(struct journal_writer *writer, struct iovec *parts, int count, size_t bytes,
                               uint64_t offset)
{
    if (writer->direct && bytes > JOURNAL_DIRECT_BYTES_MAX)
        journal_set_direct(writer, false); /* for the rest of this segment, so that cache and disk cannot disagree */
    if (!writer->direct)
        return journal_write(writer->dir.ops, writer->fd, parts, count, offset);
    struct iovec whole = stage_group(writer, parts, count, bytes);
    enum kv_err err = journal_write(writer->dir.ops, writer->fd, &whole, 1, offset);
    if (err != KV_IO || errno != EINVAL)
        return err;
    /* This disk has larger blocks, or wrote a part of one: nothing is lost, it is written again. */
    journal_set_direct(writer, false);
    whole = (struct iovec){writer->staging, bytes};
    return journal_write(writer->dir.ops, writer->fd, &whole, 1, offset);
}

static void count_group(struct journal_writer *writer, uint32_t records, uint64_t bytes, uint64_t took_ns)
{
    kv_histogram_add(&writer->done.group_records, &kv_histogram_counts, records);
    kv_histogram_add(&writer->done.group_bytes, &kv_histogram_bytes, bytes);
    kv_histogram_add(&writer->done.write_ns, &kv_histogram_times, took_ns);
}

/* `segment_header` is NULL but for the first group of a segment. One system call for all parts. */
static enum kv_err write_group(struct journal *journal, struct kv_slice payload, uint32_t records,
                               uint8_t *segment_header)
{
    static const uint8_t padding[JOURNAL_BLOCK_BYTES];
    struct journal_writer *writer = &journal->writer;
    struct journal_group group = {records, payload.bytes, writer->written + 1, writer->flushed};
    uint8_t header[JOURNAL_GROUP_HEADER_BYTES];
    uint64_t bytes = journal_group_bytes(payload.bytes), lead = segment_header ? JOURNAL_BLOCK_BYTES : 0;
    journal_encode_group(&group, &writer->seal, payload.data, header);
    struct iovec parts[] = {{segment_header, lead},
                            {header, sizeof header},
                            {(void *)(uintptr_t)payload.data, payload.bytes},
                            {(void *)(uintptr_t)padding, bytes - sizeof header - payload.bytes}};
    uint64_t begin_ns = kv_clock_ns();
    enum kv_err err = write_parts(writer, parts, 4, lead + bytes, writer->offset - lead);
    if (err != KV_OK)
        return err;
    count_group(writer, records, bytes, kv_clock_ns() - begin_ns);
    if (writer->flushed == writer->written)
        writer->dirty_since_ms = kv_clock_ms();
    writer->written += records;
    writer->offset += bytes;
    return KV_OK;
}

/* Order matters: 1. the old segment is flushed; 2. header and first group are flushed under the spare's name; 3. the file gets
 * its segment name, durably. So at replay a named segment has a good beginning and a whole predecessor. */
static enum kv_err write_first_group(struct journal *journal, struct kv_slice rest, struct kv_slice *payload)
{
    struct journal_writer *writer = &journal->writer;
    uint8_t header[JOURNAL_BLOCK_BYTES];
    struct journal_spare spare;
    uint32_t records;
    uint64_t first = writer->written + 1;
    enum kv_err err = begin_segment(journal, journal_group_bytes(first_record_bytes(rest)), &spare, header);
    if (err != KV_OK)
        return err;
    *payload = cut_group(rest, writer->segment_bytes - writer->offset, &records);
    err = write_group(journal, *payload, records, header);
    if (err == KV_OK)
        err = journal_flush_segment(journal);
    if (err == KV_OK)
        err = journal_dir_name_segment(&writer->dir, &spare, first);
    return err;
}

static enum kv_err write_taken(struct journal *journal)
{
    struct journal_writer *writer = &journal->writer;
    struct kv_slice rest = kv_buf_peek(&writer->taken.bytes);
    enum kv_err err = KV_OK;
    while (err == KV_OK && rest.bytes > 0) {
        uint32_t records;
        struct kv_slice payload =
            cut_group(rest, writer->fd < 0 ? 0 : writer->segment_bytes - writer->offset, &records);
        if (records > 0)
            err = write_group(journal, payload, records, NULL);
        else
            err = write_first_group(journal, rest, &payload);
        rest = kv_slice(rest.data + payload.bytes, rest.bytes - payload.bytes);
    }
    if (err == KV_OK && journal->flush)
        err = journal_flush_segment(journal);
    return err;
}

static void taken_is_done(struct journal *journal)
{
    struct journal_queue *taken = &journal->writer.taken;
    pthread_mutex_lock(&journal->mutex);
    journal->queued_bytes -= taken->bytes.bytes;
    pthread_mutex_unlock(&journal->mutex);
    taken->bytes.bytes = 0;
    taken->records = 0;
    if (taken->bytes.capacity > BUFFER_BYTES_KEPT)
        kv_buf_free(&taken->bytes);
}

enum kv_err journal_write_taken(struct journal *journal)
{
    enum kv_err err = write_taken(journal);
    if (err != KV_OK)
        return err;
    atomic_store_explicit(&journal->durable, journal->writer.written, memory_order_release);
    journal_publish(journal);
    taken_is_done(journal);
    return KV_OK;
}
