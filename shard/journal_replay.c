/* shard/journal_replay.c -- see journal_replay.h. A segment is read whole: 8 MiB, or one very large record. */
#include "journal_replay.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv/log.h"

struct replay {
    struct journal_dir *dir;
    uint64_t position; /* the last record seen, or skipped */
    uint64_t skip;     /* records up to this one are in LMDB */
    journal_on_record on_record;
    void *ctx;
    char *why;
    size_t why_bytes;

    /* the segment at hand */
    char name[JOURNAL_NAME_BYTES];
    int fd;
    struct kv_buf bytes; /* padded with zeros when the file is shorter than it should be */
    uint64_t file_bytes;
    struct journal_segment_header header;
    struct journal_seal seal;
    uint64_t offset; /* behind the last good group */
};

static enum kv_err corrupt(struct replay *replay, uint64_t offset, const char *what)
{
    snprintf(replay->why, replay->why_bytes, "journal/%s is damaged at offset %" PRIu64 ": %s", replay->name, offset,
             what);
    return KV_CORRUPT;
}

static enum kv_err io_error(struct replay *replay, const char *what)
{
    snprintf(replay->why, replay->why_bytes, "journal/%s: %s: %s", replay->name, what, strerror(errno));
    return KV_IO;
}

static enum kv_err read_whole(struct replay *replay, uint64_t bytes)
{
    kv_buf_reserve(&replay->bytes, bytes);
    while (replay->bytes.bytes < bytes) {
        ssize_t got = pread(replay->fd, replay->bytes.data + replay->bytes.bytes, bytes - replay->bytes.bytes,
                            (off_t)replay->bytes.bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return io_error(replay, "cannot be read");
        if (got == 0)
            break;
        replay->bytes.bytes += (size_t)got;
    }
    return KV_OK;
}

static enum kv_err check_header(struct replay *replay, uint64_t first)
{
    if (journal_decode_segment(kv_buf_peek(&replay->bytes), &replay->header) != KV_OK)
        return corrupt(replay, 0, "the header is not one of this version");
    if (replay->header.first != first)
        return corrupt(replay, 0, "the header belongs to another segment");
    uint64_t bytes = replay->header.segment_bytes;
    if (bytes % JOURNAL_BLOCK_BYTES != 0 || bytes < 2 * JOURNAL_BLOCK_BYTES || bytes > JOURNAL_SEGMENT_BYTES_MAX ||
        bytes < replay->file_bytes)
        return corrupt(replay, 0, "the header gives another size than the file has");
    return KV_OK;
}

static enum kv_err open_segment(struct replay *replay, uint64_t first)
{
    struct stat stat;
    journal_segment_name(first, replay->name);
    replay->bytes.bytes = 0;
    replay->offset = JOURNAL_BLOCK_BYTES;
    replay->fd = openat(replay->dir->fd, replay->name, (replay->dir->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (replay->fd < 0 || fstat(replay->fd, &stat) != 0)
        return io_error(replay, "cannot be opened");
    replay->file_bytes = (uint64_t)stat.st_size;
    enum kv_err err = read_whole(replay, replay->file_bytes);
    if (err == KV_OK)
        err = check_header(replay, first);
    if (err != KV_OK)
        return err;
    uint64_t missing = replay->header.segment_bytes - replay->bytes.bytes;
    memset(kv_buf_reserve(&replay->bytes, missing), 0, missing);
    replay->bytes.bytes += missing;
    replay->seal = journal_seal_of(replay->header.salt);
    return KV_OK;
}

static void close_segment(struct replay *replay)
{
    if (replay->fd >= 0)
        close(replay->fd);
    replay->fd = -1;
}

static struct kv_slice rest_from(const struct replay *replay, uint64_t offset)
{
    return kv_slice(replay->bytes.data + offset, replay->bytes.bytes - offset);
}

static enum kv_err replay_records(struct replay *replay, const struct journal_group *group)
{
    struct kv_slice rest =
        kv_slice(replay->bytes.data + replay->offset + JOURNAL_GROUP_HEADER_BYTES, group->payload_bytes);
    uint32_t records = 0;
    for (; rest.bytes > 0 && records < group->records; records++) {
        uint32_t type;
        struct kv_slice body;
        if (journal_decode_record(&rest, &type, &body) != KV_OK)
            return corrupt(replay, replay->offset, "a record does not end within its group");
        replay->position++;
        if (replay->position <= replay->skip)
            continue;
        enum kv_err err = replay->on_record(replay->ctx, replay->position, type, body);
        if (err != KV_OK) {
            snprintf(replay->why, replay->why_bytes, "journal/%s: record %" PRIu64 " was refused: %s", replay->name,
                     replay->position, kv_err_text(err));
            return err;
        }
    }
    if (rest.bytes > 0 || records != group->records)
        return corrupt(replay, replay->offset, "a group does not hold the number of records it says");
    return KV_OK;
}

/* Good groups, until one is bad or the segment ends. */
static enum kv_err replay_groups(struct replay *replay)
{
    struct journal_group group;
    while (journal_decode_group(rest_from(replay, replay->offset), &replay->seal, &group) == KV_OK) {
        if (group.first != replay->position + 1)
            return corrupt(replay, replay->offset, "a group does not continue the one before it");
        enum kv_err err = replay_records(replay, &group);
        if (err != KV_OK)
            return err;
        replay->offset += journal_group_bytes(group.payload_bytes);
    }
    return KV_OK;
}

/* Looks behind the end for a group that proves the end wrong. */
static enum kv_err check_tail(struct replay *replay)
{
    struct journal_group group;
    for (uint64_t at = replay->offset; at < replay->bytes.bytes; at += JOURNAL_BLOCK_BYTES)
        if (journal_decode_group(rest_from(replay, at), &replay->seal, &group) == KV_OK &&
            group.flushed > replay->position)
            return corrupt(replay, replay->offset, "a bad group, and groups written after it was on disk follow");
    return KV_OK;
}

static bool tail_is_clear(const struct replay *replay)
{
    struct kv_slice rest = rest_from(replay, replay->offset);
    return replay->file_bytes == replay->bytes.bytes &&
           (rest.bytes == 0 || (rest.data[0] == 0 && memcmp(rest.data, rest.data + 1, rest.bytes - 1) == 0));
}

/* Zeroes what lies behind the end: else a new group could come to lie right before an old good one, which would then seem to
 * continue it. And flushes: what was replayed may have been written, but not flushed, when the process was killed. */
static enum kv_err settle_tail(struct replay *replay)
{
    if (!tail_is_clear(replay)) {
        uint64_t bytes = replay->bytes.bytes - replay->offset;
        memset(replay->bytes.data + replay->offset, 0, bytes);
        struct iovec part = {replay->bytes.data + replay->offset, bytes};
        if (journal_write(replay->dir->ops, replay->fd, &part, 1, replay->offset) != KV_OK)
            return io_error(replay, "its tail cannot be cleared");
    }
    return replay->dir->ops->fdatasync(replay->fd) == 0 ? KV_OK : io_error(replay, "cannot be flushed");
}

/* One segment; the last one stays open. */
static enum kv_err replay_segment(struct replay *replay, struct journal_segment *segment, bool last)
{
    close_segment(replay);
    enum kv_err err = open_segment(replay, segment->first);
    if (err == KV_OK)
        err = replay_groups(replay);
    if (err == KV_OK && replay->offset == JOURNAL_BLOCK_BYTES)
        err = corrupt(replay, replay->offset, "the first group, which was on disk before the file got its name");
    if (err == KV_OK)
        err = check_tail(replay);
    if (err == KV_OK && last && !replay->dir->read_only)
        err = settle_tail(replay);
    if (err != KV_OK)
        return err;
    segment->bytes = replay->bytes.bytes;
    segment->last = replay->position;
    return KV_OK;
}

/* Segments before the one that holds record skip + 1 need not be read: LMDB has them. */
static size_t skip_segments(struct replay *replay)
{
    struct journal_segment *segments = replay->dir->segments;
    size_t at = 0;
    for (; at + 1 < replay->dir->segment_count && segments[at + 1].first <= replay->skip + 1; at++) {
        struct stat stat;
        journal_segment_name(segments[at].first, replay->name);
        if (fstatat(replay->dir->fd, replay->name, &stat, 0) == 0)
            segments[at].bytes = (uint64_t)stat.st_size;
        segments[at].last = segments[at + 1].first - 1;
    }
    return at;
}

static enum kv_err replay_segments(struct replay *replay)
{
    struct journal_segment *segments = replay->dir->segments;
    size_t count = replay->dir->segment_count;
    size_t at = skip_segments(replay);
    if (count == 0 && replay->skip > 0) {
        snprintf(replay->why, replay->why_bytes,
                 "the journal is empty, though %" PRIu64 " of its records were applied: its files were removed, "
                 "and what they held is lost",
                 replay->skip);
        return KV_CORRUPT;
    }
    if (count == 0)
        return KV_OK;
    if (segments[at].first == 0 || segments[at].first > replay->skip + 1) {
        snprintf(replay->why, replay->why_bytes,
                 "the journal begins with record %" PRIu64 " but record %" PRIu64 " is the next one needed",
                 segments[at].first, replay->skip + 1);
        return KV_CORRUPT;
    }
    replay->position = segments[at].first - 1;
    for (; at < count; at++) {
        if (segments[at].first != replay->position + 1) {
            snprintf(replay->why, replay->why_bytes,
                     "journal/%s ends at offset %" PRIu64 " with record %" PRIu64
                     ", but the next segment begins with %" PRIu64 ": it is damaged, or a segment is missing",
                     replay->name, replay->offset, replay->position, segments[at].first);
            return KV_CORRUPT;
        }
        enum kv_err err = replay_segment(replay, &segments[at], at + 1 == count);
        if (err != KV_OK)
            return err;
    }
    return KV_OK;
}

/* A journal that ends before what LMDB holds (DURABILITY=interval and a power cut) is done with: a new segment goes on behind
 * LMDB's position, and the old ones are all released. */
static void find_tail(struct replay *replay, struct journal_tail *out)
{
    *out = (struct journal_tail){.fd = -1, .position = replay->skip};
    if (replay->fd < 0 || replay->position < replay->skip)
        return;
    replay->dir->segments[replay->dir->segment_count - 1].last = 0;
    *out = (struct journal_tail){replay->fd, replay->offset, replay->bytes.bytes, replay->seal, replay->position};
    replay->fd = -1;
}

enum kv_err journal_replay(struct journal_dir *dir, uint64_t position, journal_on_record on_record, void *ctx,
                           char *why, size_t why_bytes, struct journal_tail *out)
{
    struct replay replay = {.dir = dir,
                            .skip = position,
                            .position = position,
                            .on_record = on_record,
                            .ctx = ctx,
                            .why = why,
                            .why_bytes = why_bytes,
                            .fd = -1};
    enum kv_err err = replay_segments(&replay);
    if (err == KV_OK)
        find_tail(&replay, out);
    close_segment(&replay);
    kv_buf_free(&replay.bytes);
    return err;
}

enum kv_err journal_read(int parent_fd, uint64_t position, journal_on_record on_record, void *ctx, char *why,
                         size_t why_bytes)
{
    struct journal_dir dir;
    struct journal_tail tail = {.fd = -1};
    enum kv_err err = journal_dir_open_to_read(parent_fd, why, why_bytes, &dir);
    if (err != KV_OK)
        return err;
    err = journal_replay(&dir, position, on_record, ctx, why, why_bytes, &tail);
    if (tail.fd >= 0)
        close(tail.fd);
    journal_dir_close(&dir);
    return err;
}
