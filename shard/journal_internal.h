/* shard/journal_internal.h -- what the parts of the journal share: journal.c on the loop thread, journal_thread.c on its own,
 * journal_groups.c, which writes for either. Nobody else includes this but the tests, which hand in failing system calls and small
 * segments. */
#ifndef KV_SHARD_JOURNAL_INTERNAL_H
#define KV_SHARD_JOURNAL_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "journal.h"
#include "journal_dir.h"

#define JOURNAL_SPARE_RETRY_MS 1000u
#define JOURNAL_DIRECT_BYTES_MAX (1024u * 1024) /* larger groups go through the page cache */

/* Records on their way: bytes as they stand in a group's payload, and how many. */
struct journal_queue {
    struct kv_buf bytes;
    uint64_t records;
};

/* The segment that is written: the journal thread's, but for the time in which the loop has borrowed it from a resting one. */
struct journal_writer {
    struct journal_dir dir;
    int fd;           /* -1: the next group begins a segment */
    bool direct;      /* fd is written past the page cache: whole groups, from `staging` */
    uint8_t *staging; /* a group of up to JOURNAL_DIRECT_BYTES_MAX as it stands on the disk, aligned to a block */
    size_t staging_bytes;
    uint64_t offset;
    uint64_t segment_bytes;
    struct journal_seal seal;
    uint64_t written; /* last position handed to the kernel */
    uint64_t flushed; /* last position known to be on the disk */
    uint64_t dirty_since_ms;
    uint64_t spare_retry_ms; /* no attempt to make a spare before this time */
    bool full;               /* the last attempt met a full disk */
    struct journal_queue taken;
    struct journal_stats done; /* since the last report */
};

struct journal {
    bool flush;
    uint64_t flush_interval_ms;
    int event_fd;
    pthread_t thread;

    /* loop thread */
    struct journal_queue building;
    uint64_t position; /* last one given out */
    uint64_t record_bytes_max;
    uint64_t slow_until_ms; /* nothing is written on the loop before */

    /* any thread */
    _Atomic uint64_t durable;
    atomic_bool failed;

    pthread_mutex_t mutex; /* guards down to `stats`; never held over a system call on a file */
    pthread_cond_t wake;
    struct journal_queue submitted;
    uint64_t queued_bytes; /* submitted and taken, not yet written */
    uint64_t released;
    bool stop;
    bool resting;        /* the thread waits for work and leaves `writer` alone, */
    bool borrowed;       /* which the loop uses meanwhile, */
    bool awaited;        /* and the thread waits to have back */
    uint64_t rest_bytes; /* of the segment in use */
    uint64_t spares;     /* of the usual size */
    bool full;
    struct journal_stats stats;

    struct journal_writer writer;
};

enum kv_err journal_open_with(const struct journal_options *options, const struct journal_ops *ops,
                              uint64_t segment_bytes, journal_on_record on_record, void *ctx, char *why,
                              size_t why_bytes, struct journal **out);

/* Body of the journal thread; `arg` is the struct journal. */
void *journal_run(void *arg);
/* Either side, with the writer in its hands: writes and flushes what is in writer.taken, and reports it. */
enum kv_err journal_write_taken(struct journal *journal);
void journal_fail(struct journal *journal, enum kv_err err, const char *what);
/* Tells the loop's side what the files look like now. */
void journal_publish(struct journal *journal);
/* Up to which position LMDB has all. */
uint64_t journal_released(struct journal *journal);
/* With the mutex held: until something happens, or the deadline; UINT64_MAX: none. */
void journal_wait_until(struct journal *journal, uint64_t deadline_ms);
/* What was written to the segment in use is on the disk afterwards. */
enum kv_err journal_flush_segment(struct journal *journal);
/* Past the page cache a flush finds nothing to collect and a write copies nothing: half the CPU of a group, and less time.
 * A filesystem that cannot do it refuses the flag, and groups go through the cache. */
void journal_set_direct(struct journal_writer *writer, bool direct);

#endif
