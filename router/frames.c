/* router/frames.c -- see frames.h. */
#include "frames.h"

#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

#include "kv/log.h"

#define ASKS_MAX 255u

struct frame {
    struct frame_name {
        struct kv_hash hash;
        uint64_t number;
    } name;
    struct kv_slice content; /* no data: it is counted, not kept */
    unsigned asks;           /* of late */
    unsigned holders;
    struct frame *prev, *next; /* of the list of its kind */
    UT_hash_handle hh;
};

struct frames {
    uint64_t bytes_max, bytes;
    uint64_t kept_count, asked_count, asked_max;
    struct frame *all;          /* uthash */
    struct frame *kept, *asked; /* utlist: what was asked for longest ago is in front */
};

static struct frame *find(const struct frames *frames, const struct kv_hash *hash, uint64_t number)
{
    struct frame_name name = {*hash, number};
    struct frame *frame;
    HASH_FIND(hh, frames->all, &name, sizeof name, frame);
    return frame;
}

/* ---- coming and going --------------------------------------------------------------------------------------------- */

/* Into the list of its kind, as the newest. */
static void list(struct frames *frames, struct frame *frame)
{
    if (frame->content.data != NULL) {
        DL_APPEND(frames->kept, frame);
        frames->kept_count++;
        frames->bytes += frame->content.bytes;
    } else {
        DL_APPEND(frames->asked, frame);
        frames->asked_count++;
    }
}

static void unlist(struct frames *frames, struct frame *frame)
{
    if (frame->content.data != NULL) {
        DL_DELETE(frames->kept, frame);
        frames->kept_count--;
        frames->bytes -= frame->content.bytes;
    } else {
        DL_DELETE(frames->asked, frame);
        frames->asked_count--;
    }
}

static void forget(struct frames *frames, struct frame *frame)
{
    kv_assert(frame->holders == 0);
    unlist(frames, frame);
    HASH_DEL(frames->all, frame);
    free((void *)(uintptr_t)frame->content.data);
    free(frame);
}

/* Of what is counted only. */
static void forget_oldest(struct frames *frames)
{
    while (frames->asked_count > frames->asked_max)
        forget(frames, frames->asked);
}

static void give_up_content(struct frames *frames, struct frame *frame)
{
    unlist(frames, frame);
    free((void *)(uintptr_t)frame->content.data);
    frame->content = kv_slice(NULL, 0);
    list(frames, frame);
}

struct frames *frames_new(uint64_t bytes_max)
{
    if (bytes_max == 0)
        return NULL;
    struct frames *frames = kv_alloc_zero(1, sizeof *frames);
    frames->bytes_max = bytes_max;
    frames->asked_max = bytes_max / FRAMES_ASKED_BYTES + 1;
    return frames;
}

void frames_free(struct frames **frames)
{
    if (*frames == NULL)
        return;
    struct frame *frame, *next;
    HASH_ITER(hh, (*frames)->all, frame, next)
        forget(*frames, frame);
    free(*frames);
    *frames = NULL;
}

/* ---- asking ------------------------------------------------------------------------------------------------------- */

static struct frame *add(struct frames *frames, const struct kv_hash *hash, uint64_t number)
{
    struct frame *frame = kv_alloc_zero(1, sizeof *frame);
    frame->name = (struct frame_name){*hash, number};
    HASH_ADD(hh, frames->all, name, sizeof frame->name, frame);
    list(frames, frame);
    forget_oldest(frames);
    return frame;
}

/* True: it is kept. */
static bool ask(struct frames *frames, const struct kv_hash *hash, uint64_t number)
{
    struct frame *frame = find(frames, hash, number);
    if (frame == NULL)
        frame = add(frames, hash, number);
    frame->asks += frame->asks < ASKS_MAX;
    unlist(frames, frame);
    list(frames, frame);
    return frame->content.data != NULL;
}

bool frames_hold(struct frames *frames, const struct frames_span *span)
{
    if (frames == NULL || span->end - span->first > frames->bytes_max / 4 / KV_CONTENT_FRAME_BYTES)
        return false;
    bool all = true;
    for (uint64_t number = span->first; number < span->end; number++)
        all = ask(frames, &span->hash, number) && all;
    for (uint64_t number = span->first; all && number < span->end; number++)
        find(frames, &span->hash, number)->holders++;
    return all;
}

struct kv_slice frames_peek(const struct frames *frames, const struct kv_hash *hash, uint64_t number)
{
    const struct frame *frame = find(frames, hash, number);
    kv_assert(frame != NULL && frame->holders > 0);
    return frame->content;
}

void frames_let_go(struct frames *frames, const struct frames_span *span)
{
    for (uint64_t number = span->first; number < span->end; number++) {
        struct frame *frame = find(frames, &span->hash, number);
        kv_assert(frame != NULL && frame->holders > 0);
        frame->holders--;
    }
}

/* ---- keeping ------------------------------------------------------------------------------------------------------ */

/* False: what is in the way is lent out, or asked for as often. */
static bool make_room(struct frames *frames, uint64_t bytes, unsigned asks)
{
    struct frame *oldest = frames->kept, *next;
    for (; frames->bytes + bytes > frames->bytes_max && oldest != NULL; oldest = next) {
        next = oldest->next;
        if (oldest->holders > 0)
            continue;
        if (oldest->asks >= asks)
            return false;
        give_up_content(frames, oldest);
    }
    return frames->bytes + bytes <= frames->bytes_max;
}

void frames_offer(struct frames *frames, const struct kv_hash *hash, uint64_t number, struct kv_slice content)
{
    struct frame *frame = frames == NULL ? NULL : find(frames, hash, number);
    if (frame == NULL || frame->content.data != NULL || frame->asks < FRAMES_ASKS_MIN ||
        !make_room(frames, content.bytes, frame->asks))
        return;
    unlist(frames, frame);
    frame->content = kv_slice(kv_copy(content), content.bytes);
    list(frames, frame);
    forget_oldest(frames);
}

bool frames_sweep(struct frames *frames)
{
    struct frame *frame, *next;
    bool freed = false;
    if (frames == NULL)
        return false;
    HASH_ITER(hh, frames->all, frame, next) {
        if (frame->asks > 0 || frame->holders > 0) {
            frame->asks /= 2;
            continue;
        }
        forget(frames, frame);
        freed = true;
    }
    return freed;
}

uint64_t frames_bytes(const struct frames *frames)
{
    return frames == NULL ? 0 : frames->bytes;
}

uint64_t frames_count(const struct frames *frames)
{
    return frames == NULL ? 0 : frames->kept_count;
}
