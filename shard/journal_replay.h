/* shard/journal_replay.h -- reads the journal at start and finds its end.
 * Does:     replays the records behind a position, in order; decides what a bad group means; clears the place behind the
 *           last good group, so that nothing old can ever be taken for new.
 * Rule:     every group says up to which record the disk was flushed when it was written. Behind a bad place, a good group
 *           that says the bad place had been flushed proves damage: KV_CORRUPT. Without such a proof the bad place is
 *           a torn tail and is cut. (With DURABILITY=interval several groups can be in flight when the power goes, and a later one may
 *           reach the disk without an earlier one: that is a tail, too.) A segment is flushed before the next one begins, so
 *           a bad group in any but the last segment is damage.
 *           No segment at all, though records were applied, is damage: journal_dir.h keeps the newest one.
 * Fails:    KV_CORRUPT with a sentence that names file and offset, KV_IO, or what on_record returned.
 * Tests:    unit/shard/test_journal.c. */
#ifndef KV_SHARD_JOURNAL_REPLAY_H
#define KV_SHARD_JOURNAL_REPLAY_H

#include "journal.h"
#include "journal_dir.h"

/* Where writing goes on. */
struct journal_tail {
    int fd; /* of the last segment, or -1: the next group begins a new one */
    uint64_t offset;
    uint64_t segment_bytes;
    struct journal_seal seal;
    uint64_t position; /* the last record there is, at least the one asked for */
};

/* A directory that was opened to be read is left as it is: a torn tail is passed over, not cut, and `out->fd` not to be written. */
enum kv_err journal_replay(struct journal_dir *dir, uint64_t position, journal_on_record on_record, void *ctx,
                           char *why, size_t why_bytes, struct journal_tail *out);
/* Gives what journal_open would replay, without changing a byte below `parent_fd`. */
enum kv_err journal_read(int parent_fd, uint64_t position, journal_on_record on_record, void *ctx, char *why,
                         size_t why_bytes);

#endif
