/* include/kv/buf.h -- a growing byte buffer, and the allocator that every process uses.
 * Running out of memory is fatal by decision: kv_alloc and friends log and abort, the supervisor
 * restarts the process and the journal brings back every acknowledged write. Nothing returns NULL.
 * Implementation: supervisor/base/buf.c. Tests: unit/base/test_buf.c. */
#ifndef KV_BUF_H
#define KV_BUF_H

#include "kv/slice.h"

/* malloc/calloc/realloc that abort instead of returning NULL. Release with free(). */
void *kv_alloc(size_t bytes);
void *kv_alloc_zero(size_t count, size_t bytes);
void *kv_realloc(void *old, size_t bytes);
/* Gives memory back to the system that the calling thread took and that was freed since. kv_trim_prepare, called before the first
 * thread starts, makes the allocator give back all of it. */
void kv_trim(void);
void kv_trim_prepare(void);
/* A malloc'ed copy of the slice (at least one byte is allocated). */
uint8_t *kv_copy(struct kv_slice slice);

/* Zero-initialised is empty and valid. */
struct kv_buf {
    uint8_t *data;
    size_t bytes;
    size_t capacity;
};

/* Makes room for `more` bytes behind the end and returns where they go; does not change `bytes`. */
uint8_t *kv_buf_reserve(struct kv_buf *buf, size_t more);

static inline void kv_buf_append(struct kv_buf *buf, struct kv_slice slice)
{
    if (slice.bytes == 0)
        return;
    if (slice.bytes > buf->capacity - buf->bytes)
        kv_buf_reserve(buf, slice.bytes);
    memcpy(buf->data + buf->bytes, slice.data, slice.bytes);
    buf->bytes += slice.bytes;
}

/* Drops `bytes` from the front (moves the rest down). */
void kv_buf_consume(struct kv_buf *buf, size_t bytes);
/* Frees and zeroes; accepts an empty buffer. */
void kv_buf_free(struct kv_buf *buf);

static inline struct kv_slice kv_buf_peek(const struct kv_buf *buf)
{
    return kv_slice(buf->data, buf->bytes);
}

#endif
