/* shard/outbox.c -- see outbox.h. */
#include "outbox.h"

#include <stdlib.h>

#include "kv/log.h"
#include "wire/frame.h"

#define KEEP_BYTES ((size_t)4 * 1024 * 1024) /* a larger buffer is given back once it is empty */
#define MARKS_MIN 64u

static struct kv_buf *frame_buf(struct outbox *outbox)
{
    return outbox->position <= outbox->durable ? &outbox->ready : &outbox->held;
}

struct kv_buf *outbox_begin(struct outbox *outbox, enum kv_msg type, uint64_t request_id, uint64_t position)
{
    outbox->position = position;
    outbox->begin = kv_frame_begin(frame_buf(outbox), type, request_id);
    return frame_buf(outbox);
}

/* Room for one more mark: moved to the front when half of the array is behind us, else doubled. */
static void marks_reserve(struct outbox *outbox)
{
    size_t count = outbox->marks_end - outbox->marks_first;
    if (outbox->marks_end < outbox->marks_capacity)
        return;
    if (count > outbox->marks_capacity / 2 || outbox->marks_capacity == 0) {
        outbox->marks_capacity = outbox->marks_capacity == 0 ? MARKS_MIN : outbox->marks_capacity * 2;
        outbox->marks = kv_realloc(outbox->marks, outbox->marks_capacity * sizeof(*outbox->marks));
    }
    kv_assert(outbox->marks != NULL);
    memmove(outbox->marks, outbox->marks + outbox->marks_first, count * sizeof(*outbox->marks));
    outbox->marks_first = 0;
    outbox->marks_end = count;
}

/* Ascending by construction: a smaller position behind a larger one waits with it. */
static void hold(struct outbox *outbox)
{
    uint64_t end = outbox->base + outbox->held.bytes;
    struct outbox_mark *last = outbox->marks_first < outbox->marks_end ? &outbox->marks[outbox->marks_end - 1] : NULL;
    if (last != NULL && last->position >= outbox->position) {
        last->end = end;
        return;
    }
    marks_reserve(outbox);
    outbox->marks[outbox->marks_end++] = (struct outbox_mark){outbox->position, end};
}

void outbox_end(struct outbox *outbox)
{
    kv_frame_end(frame_buf(outbox), outbox->begin);
    if (frame_buf(outbox) == &outbox->held)
        hold(outbox);
}

/* Takes `*done` bytes off the front once they are half of the buffer, so that each byte is moved at most once on average. */
static size_t drop_front(struct kv_buf *buf, size_t *done)
{
    size_t dropped = *done;
    bool empty = *done == buf->bytes;
    if (!empty && *done < buf->bytes / 2)
        return 0;
    kv_buf_consume(buf, *done);
    *done = 0;
    if (empty && buf->capacity > KEEP_BYTES)
        kv_buf_free(buf);
    return dropped;
}

void outbox_release(struct outbox *outbox, uint64_t durable)
{
    kv_assert(durable >= outbox->durable);
    outbox->durable = durable;
    uint64_t end = outbox->base + outbox->moved;
    while (outbox->marks_first < outbox->marks_end && outbox->marks[outbox->marks_first].position <= durable)
        end = outbox->marks[outbox->marks_first++].end;
    size_t bytes = (size_t)(end - outbox->base) - outbox->moved;
    if (bytes == 0)
        return;
    kv_assert(outbox->moved + bytes <= outbox->held.bytes);
    kv_buf_append(&outbox->ready, kv_slice(outbox->held.data + outbox->moved, bytes));
    outbox->moved += bytes;
    outbox->base += drop_front(&outbox->held, &outbox->moved);
}

struct kv_slice outbox_peek(const struct outbox *outbox)
{
    if (outbox->written == outbox->ready.bytes)
        return kv_slice(NULL, 0);
    return kv_slice(outbox->ready.data + outbox->written, outbox->ready.bytes - outbox->written);
}

void outbox_consume(struct outbox *outbox, size_t bytes)
{
    kv_assert(bytes <= outbox->ready.bytes - outbox->written);
    outbox->written += bytes;
    drop_front(&outbox->ready, &outbox->written);
}

size_t outbox_bytes(const struct outbox *outbox)
{
    return outbox->ready.bytes - outbox->written + outbox->held.bytes - outbox->moved;
}

void outbox_trim(struct outbox *outbox)
{
    if (outbox->ready.bytes == 0)
        kv_buf_free(&outbox->ready);
    if (outbox->held.bytes == 0)
        kv_buf_free(&outbox->held);
}

void outbox_free(struct outbox *outbox)
{
    kv_buf_free(&outbox->ready);
    kv_buf_free(&outbox->held);
    free(outbox->marks);
    *outbox = (struct outbox){0};
}
