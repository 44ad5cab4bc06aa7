/* shard/journal_dir.h -- the journal's files: segments in use, and spares that wait to become one.
 * Does:     scans the directory, makes spares (allocated first, zeroed bit by bit), gives a spare its segment name, turns
 *           released segments into spares.
 * Owns:     DB_PATH/shard-<i>/journal/: `<first position, 16 hex digits>` is a segment, `spare-<number>` a spare, `making` one
 *           that is being allocated. One thread at a time: journal_open's, then the journal thread.
 *           One that was ever used is never empty: the newest segment stays, released or not, until the next one has its name.
 * Promises: a file carries a segment's name only after its header and first group are on disk, so a segment
 *           whose beginning is bad was damaged. A name is given or taken back with an fsync of the directory, and a file is
 *           written under its new name only after that.
 * Fails:    KV_NO_SPACE (ENOSPC, EDQUOT: nothing changed), KV_IO; `journal_dir` itself stays usable.
 * Tests:    unit/shard/test_journal.c. */
#ifndef KV_SHARD_JOURNAL_DIR_H
#define KV_SHARD_JOURNAL_DIR_H

#include <sys/types.h>
#include <sys/uio.h>

#include "journal_format.h"

#define JOURNAL_SPARES_READY 3u           /* allocated ahead; the last of them is the reserve for deletes */
#define JOURNAL_SPARES_MAX 16u            /* kept of what was released; more are removed */
#define JOURNAL_ZERO_BYTES (1024u * 1024) /* zeroed in one step between groups */

/* The system calls that may fail, so that a test can make them fail. */
struct journal_ops {
    ssize_t (*pwritev)(int fd, const struct iovec *parts, int count, off_t offset);
    int (*fdatasync)(int fd);
    int (*allocate)(int fd, off_t offset, off_t bytes); /* as posix_fallocate: returns the error number */
    uint64_t (*free_bytes)(int fd);                     /* that this process may still take on fd's filesystem */
};

extern const struct journal_ops journal_ops_system;

struct journal_segment {
    uint64_t first;
    uint64_t last; /* 0 while it is being written */
    uint64_t bytes;
};

struct journal_spare {
    unsigned number;
    uint64_t bytes;
    uint64_t zeroed; /* bytes written so far; all of them: a flush in it changes no metadata */
};

struct journal_dir {
    int fd;         /* -1: read only, and there is no such directory */
    bool read_only; /* names and contents stay as they are; spares are passed over */
    const struct journal_ops *ops;
    uint64_t segment_bytes;
    struct journal_segment *segments; /* ascending */
    size_t segment_count;
    size_t segment_capacity;
    struct journal_spare spares[JOURNAL_SPARES_MAX + 1]; /* one of them for a single large record */
    size_t spare_count;
    unsigned spare_number_next;
};

/* Makes `journal` below `parent_fd` if need be and reads the names. `bytes` and `last` of the segments are 0 then. */
enum kv_err journal_dir_open(int parent_fd, const struct journal_ops *ops, uint64_t segment_bytes, char *why,
                             size_t why_bytes, struct journal_dir *out);
/* The same for a reader: changes nothing. No directory is an empty one. */
enum kv_err journal_dir_open_to_read(int parent_fd, char *why, size_t why_bytes, struct journal_dir *out);
void journal_dir_close(struct journal_dir *dir);

#define JOURNAL_NAME_BYTES 32u
void journal_segment_name(uint64_t first, char name[JOURNAL_NAME_BYTES]);

/* Allocates one more spare of `bytes`. */
enum kv_err journal_dir_add_spare(struct journal_dir *dir, uint64_t bytes);
/* Zeroes the next piece of one of the first JOURNAL_SPARES_READY spares. KV_NOT_FOUND: these are done. */
enum kv_err journal_dir_zero_step(struct journal_dir *dir);
/* Takes a spare of at least `bytes` out of the list and opens it: zeroed ones first. KV_NOT_FOUND: none fits. */
enum kv_err journal_dir_take_spare(struct journal_dir *dir, uint64_t bytes, struct journal_spare *out, int *fd);
/* The spare's header and first group are on disk: names it and appends it to the segments. */
enum kv_err journal_dir_name_segment(struct journal_dir *dir, const struct journal_spare *spare, uint64_t first);
/* Turns the oldest segment whose records all are at or below `released` into a spare, or removes it; never the newest.
 * KV_NOT_FOUND: there is none. */
enum kv_err journal_dir_recycle(struct journal_dir *dir, uint64_t released);
/* Writes all parts, whatever the system call splits them into. `parts` is used up. */
enum kv_err journal_write(const struct journal_ops *ops, int fd, struct iovec *parts, int count, uint64_t offset);
/* ENOSPC and EDQUOT are KV_NO_SPACE, anything else KV_IO. */
enum kv_err journal_errno(int number);

#endif
