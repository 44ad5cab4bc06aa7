/* shard/inbox.h -- what a router said and nobody has handled yet: bytes, and the descriptors that came with them.
 * Does:     reads a socket; keeps descriptors in the order of their frames.
 * Owns:     its buffer and its descriptors, until they are taken.
 * Limits:   INBOX_FILES_MAX descriptors that wait for their frames: a router has fewer under way.
 * Tests:    unit/shard/test_inbox.c. */
#ifndef KV_SHARD_INBOX_H
#define KV_SHARD_INBOX_H

#include "kv/buf.h"
#include "kv/err.h"

#define INBOX_READ_BYTES (256u * 1024) /* at a time */
#define INBOX_FILES_MAX 64u

struct inbox {
    struct kv_buf bytes;
    int files[INBOX_FILES_MAX];
    unsigned file_count;
};

/* Adds what came to `bytes`, and its number to `*total`. KV_OK: there may be more. KV_NOT_FOUND: there is not. KV_UNAVAILABLE:
 * the other side has gone, or the socket is broken. KV_INVALID: too many descriptors, one that is no regular file (reading
 * it might never end), or this process has no room for it. */
enum kv_err inbox_read(struct inbox *inbox, int socket_fd, size_t *total);
/* The oldest, the caller's to close; -1: there is none. */
int inbox_take_file(struct inbox *inbox);
void inbox_free(struct inbox *inbox);

#endif
