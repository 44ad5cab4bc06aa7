/* shard/journal.h -- the append-only journal: what makes an acknowledgement durable.
 * Does:     collects records of one loop turn into a group, writes groups with one write and one fdatasync each from
 *           its own thread ("kv-journal"), reports how far the disk has it; replays at start; recycles segments.
 * Owns:     DB_PATH/shard-<i>/journal/: preallocated segments named by their first position, 16 hex digits.
 * Format:   a position is the number of a record: 1, 2, 3 … for the life of the store. A segment begins with one block: magic,
 *           version, first position, segment bytes, 16 random bytes of salt (new at every recycling), checksum. Groups follow,
 *           each padded to a multiple of 4,096 bytes, so that writing one never touches an older one:
 *             magic u32 | record count u32 | payload bytes u64 | position of its first record u64 | position flushed before u64
 *             | XXH3-64 of header and payload, seeded with the salt u64
 *             then records: length u32 | type u32 | body            (integers little endian)
 *           Values come from clients and may hold the image of a group: the salt makes forging one hopeless, and stale
 *           groups of a recycled segment never fit. A record larger than a segment gets a segment of its own size.
 * Promises: journal_durable() >= p means that records 1 to p are on disk. A torn tail (the last group,
 *           incomplete) is cut at replay; a bad group that is known to have been flushed (a good later one says so) is
 *           KV_CORRUPT, refused loudly: journal_replay.h.
 *           The directory is fsynced when segments are made, renamed or removed.
 * Fails:    a failed write or flush is never retried: journal_failed() turns true, nothing further is reported durable, the
 *           caller stops the process. No room for another segment: journal_room() says so before anything is appended; what was
 *           appended all the same (others filled the disk meanwhile) waits, not durable, until there is room again.
 * Tests:    unit/shard/test_journal.c (torn and corrupt tails at every 4 KiB boundary and at random bytes, recycling). */
#ifndef KV_SHARD_JOURNAL_H
#define KV_SHARD_JOURNAL_H

#include "kv/buf.h"
#include "kv/err.h"
#include "kv/histogram.h"

#define JOURNAL_BLOCK_BYTES 4096u
/* A segment is a JOURNAL_DISK_SHARE-th of the disk, within these bounds. */
#define JOURNAL_SEGMENT_BYTES (8u * 1024 * 1024)
#define JOURNAL_SEGMENT_BYTES_MIN (1u * 1024 * 1024)
#define JOURNAL_DISK_SHARE 64u
#define JOURNAL_NOW_BYTES_MAX (128u * 1024)
#define JOURNAL_NOW_NS_MAX 2000000u
#define JOURNAL_SLOW_PAUSE_MS 100u

struct journal_options {
    int dir_fd;        /* DB_PATH/shard-<i>; "journal" is made below it */
    uint64_t position; /* from store_meta: replay starts behind this record */
    bool flush;        /* false: DURABILITY=interval, groups count as durable once written, flushed by the timer */
    uint64_t flush_interval_ms;
};

/* One record at replay, positions ascending without gaps. Anything but KV_OK stops the replay and is returned. The callee may
 * have everything up to `position` applied to LMDB; journal_release comes after journal_open then. */
typedef enum kv_err (*journal_on_record)(void *ctx, uint64_t position, uint32_t type, struct kv_slice body);

struct journal;

/* Opens, replays every record behind options->position in order, cuts a torn tail, then starts the thread. */
enum kv_err journal_open(const struct journal_options *options, journal_on_record on_record, void *ctx, char *why,
                         size_t why_bytes, struct journal **out);
/* Flushes what was submitted, stops the thread. */
void journal_close(struct journal **journal);

/* Loop thread: adds a record to the group under construction (copied) and returns its position. */
uint64_t journal_append(struct journal *journal, uint32_t type, struct kv_slice body);
/* Loop thread, at the end of a turn: hands the group to the thread. Groups submitted while a flush runs are merged into one. */
void journal_submit(struct journal *journal);
/* Instead of journal_submit, for a write that nothing else waits beside: writes and flushes the group here and now, which spares the
 * way to the thread and back. It waits for the disk, so only when the thread rests, for JOURNAL_NOW_BYTES_MAX at most, into the
 * segment in use, and not for JOURNAL_SLOW_PAUSE_MS after the disk took longer than JOURNAL_NOW_NS_MAX. False: not done, submit it.
 * True: done, or journal_failed. */
bool journal_write_now(struct journal *journal);
/* Whether `bytes` more payload surely fit on the disk (preallocated). Deletes may use `reserve`: the last segment. */
bool journal_room(struct journal *journal, uint64_t bytes, bool reserve);

/* Any thread. */
uint64_t journal_durable(const struct journal *journal);
bool journal_failed(const struct journal *journal);
/* Readable (eventfd) whenever journal_durable or journal_failed changed; the reader reads it empty. */
int journal_event_fd(const struct journal *journal);
/* Loop thread: records up to `position` are in LMDB, their segments may be recycled. */
void journal_release(struct journal *journal, uint64_t position);

/* Loop thread: gives back buffers in which nothing is. */
void journal_trim(struct journal *journal);

struct journal_stats {
    /* One value for each group: the count is that of groups, the sum that of records. */
    struct kv_histogram group_records;
    struct kv_histogram group_bytes; /* as they stand on the disk */
    struct kv_histogram write_ns;    /* past the page cache it is here that the disk is waited for, */
    struct kv_histogram flush_ns;    /* and here for its own cache */
    uint64_t flush_ns_max;           /* since the last call */
    uint64_t segments;
};
void journal_stats(struct journal *journal, struct journal_stats *out);

#endif
