/* router/calls.c -- see calls.h.
 * Does:     one list of unanswered calls per shard, in the order of calls_send; one table over all of them by request id.
 *           Everything that was written stands before everything that was not, since a link that comes up
 *           writes the whole list: so the list's order is the order of resending, too.
 * Owns:     the calls, the table, one output buffer per shard, and a hold on the files that leave with it.
 * Promises: a request id is a count that starts at 1 and never repeats, so a late answer finds nobody. Being dense, ids need
 *           no hashing: the low bits pick the bucket.
 * Fails:    see calls.h. Tests: unit/router/test_calls.c. */
#include "calls.h"

#include <stdlib.h>
#include <utlist.h>

#include "kv/limits.h"
#include "kv/log.h"
#include "wire/frame.h"

#define BUCKETS_MIN 1024u /* a power of two; the table doubles when it holds as many calls as buckets */

struct call {
    struct call *bucket_next;
    struct call *newer;
    struct call *older;
    uint64_t id;
    unsigned shard_index;
    enum kv_msg type;
    call_write_body write_body;
    call_on_answer on_answer;
    void *arg;
};

/* A file whose descriptor leaves with a frame. */
struct attached {
    struct body_file *file;
    size_t at; /* where its frame begins in the output */
    struct attached *prev, *next;
};

struct link_state {
    bool up;
    uint64_t generation;
    struct call *oldest;
    struct call *newest;
    size_t waiting;
    struct kv_buf output;
    size_t sent;               /* of the output, from its front */
    size_t frame_at;           /* where the frame begins that is being written */
    struct attached *attached; /* utlist, in the order of their frames */
};

struct calls {
    struct calls_world world;
    unsigned shard_count;
    uint64_t id_next;
    struct call **buckets;
    size_t bucket_count;
    size_t count;
    struct link_state links[KV_SHARDS_MAX];
};

struct calls *calls_new(unsigned shard_count, const struct calls_world *world)
{
    kv_assert(shard_count >= 1 && shard_count <= KV_SHARDS_MAX);
    struct calls *calls = kv_alloc_zero(1, sizeof(*calls));
    calls->world = *world;
    calls->shard_count = shard_count;
    calls->id_next = 1;
    calls->bucket_count = BUCKETS_MIN;
    calls->buckets = kv_alloc_zero(BUCKETS_MIN, sizeof(*calls->buckets));
    return calls;
}

static void detach(struct link_state *link, struct attached *attached)
{
    DL_DELETE(link->attached, attached);
    body_file_free(&attached->file);
    free(attached);
}

static void drop_output(struct link_state *link)
{
    link->output.bytes = 0;
    link->sent = 0;
    while (link->attached != NULL)
        detach(link, link->attached);
}

void calls_free(struct calls **calls)
{
    if (*calls == NULL)
        return;
    for (unsigned i = 0; i < (*calls)->shard_count; i++) {
        struct link_state *link = &(*calls)->links[i];
        for (struct call *call = link->oldest, *newer; call != NULL; call = newer) {
            newer = call->newer;
            free(call);
        }
        drop_output(link);
        kv_buf_free(&link->output);
    }
    free((*calls)->buckets);
    free(*calls);
    *calls = NULL;
}

static struct link_state *link_of(struct calls *calls, unsigned shard_index)
{
    kv_assert(shard_index < calls->shard_count);
    return &calls->links[shard_index];
}

/* ---- the table by request id ---------------------------------------------------------------------------------- */

static struct call **bucket_of(struct calls *calls, uint64_t id)
{
    return &calls->buckets[id & (calls->bucket_count - 1)];
}

static void table_grow(struct calls *calls)
{
    struct call **old = calls->buckets;
    size_t old_count = calls->bucket_count;
    calls->bucket_count = old_count * 2;
    calls->buckets = kv_alloc_zero(calls->bucket_count, sizeof(*calls->buckets));
    for (size_t i = 0; i < old_count; i++) {
        for (struct call *call = old[i], *next; call != NULL; call = next) {
            next = call->bucket_next;
            struct call **bucket = bucket_of(calls, call->id);
            call->bucket_next = *bucket;
            *bucket = call;
        }
    }
    free(old);
}

static void table_add(struct calls *calls, struct call *call)
{
    if (calls->count == calls->bucket_count)
        table_grow(calls);
    struct call **bucket = bucket_of(calls, call->id);
    call->bucket_next = *bucket;
    *bucket = call;
    calls->count++;
}

static struct call *table_find(struct calls *calls, uint64_t id)
{
    struct call *call = *bucket_of(calls, id);
    while (call != NULL && call->id != id)
        call = call->bucket_next;
    return call;
}

static void table_remove(struct calls *calls, struct call *call)
{
    struct call **place = bucket_of(calls, call->id);
    while (*place != call) {
        kv_assert(*place != NULL);
        place = &(*place)->bucket_next;
    }
    *place = call->bucket_next;
    calls->count--;
}

/* ---- the list of one shard ------------------------------------------------------------------------------------ */

static void list_append(struct link_state *link, struct call *call)
{
    call->newer = NULL;
    call->older = link->newest;
    *(link->newest != NULL ? &link->newest->newer : &link->oldest) = call;
    link->newest = call;
    link->waiting++;
}

static void list_remove(struct link_state *link, struct call *call)
{
    *(call->older != NULL ? &call->older->newer : &link->oldest) = call->newer;
    *(call->newer != NULL ? &call->newer->older : &link->newest) = call->older;
    kv_assert(link->waiting > 0);
    link->waiting--;
}

/* Takes the call out of everything; the memory stays the caller's. */
static void take_out(struct calls *calls, struct call *call)
{
    table_remove(calls, call);
    list_remove(link_of(calls, call->shard_index), call);
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

static void write_frame(struct calls *calls, unsigned shard_index, enum kv_msg type, uint64_t id,
                        call_write_body write_body, void *arg)
{
    struct link_state *link = link_of(calls, shard_index);
    struct kv_buf *output = &link->output;
    bool was_empty = output->bytes == 0;
    link->frame_at = output->bytes;
    size_t begin = kv_frame_begin(output, type, id);
    write_body(arg, output);
    kv_frame_end(output, begin);
    if (was_empty)
        calls->world.wake(calls->world.ctx, shard_index);
    if (output->bytes >= CALLS_OUTPUT_BYTES && calls->world.full != NULL)
        calls->world.full(calls->world.ctx, shard_index);
}

void calls_attach(struct calls *calls, unsigned shard_index, struct body_file *file)
{
    struct link_state *link = link_of(calls, shard_index);
    struct attached *attached = kv_alloc(sizeof(*attached));
    *attached = (struct attached){.file = body_file_hold(file), .at = link->frame_at};
    DL_APPEND(link->attached, attached);
}

struct call *calls_send(struct calls *calls, unsigned shard_index, enum kv_msg type, bool force,
                        call_write_body write_body, call_on_answer on_answer, void *arg)
{
    struct link_state *link = link_of(calls, shard_index);
    kv_assert(kv_msg_answer(type) != 0);
    if (link->waiting >= CALLS_WAITING_MAX && !force)
        return NULL;
    struct call *call = kv_alloc(sizeof(*call));
    *call = (struct call){.id = calls->id_next++,
                          .shard_index = shard_index,
                          .type = type,
                          .write_body = write_body,
                          .on_answer = on_answer,
                          .arg = arg};
    table_add(calls, call);
    list_append(link, call);
    if (link->up)
        write_frame(calls, shard_index, type, call->id, write_body, arg);
    return call;
}

void calls_tell(struct calls *calls, unsigned shard_index, enum kv_msg type, call_write_body write_body, void *arg)
{
    kv_assert(kv_msg_answer(type) == 0);
    if (link_of(calls, shard_index)->up)
        write_frame(calls, shard_index, type, calls->id_next++, write_body, arg);
}

void calls_cancel(struct calls *calls, struct call *call)
{
    if (call == NULL)
        return;
    take_out(calls, call);
    free(call);
}

void calls_hand_over(struct call *call, call_write_body write_body, call_on_answer on_answer, void *arg)
{
    call->write_body = write_body;
    call->on_answer = on_answer;
    call->arg = arg;
}

/* ---- the rim -------------------------------------------------------------------------------------------------- */

void calls_link_up(struct calls *calls, unsigned shard_index)
{
    struct link_state *link = link_of(calls, shard_index);
    kv_assert(!link->up);
    link->up = true;
    link->generation++;
    drop_output(link);
    for (struct call *call = link->oldest; call != NULL; call = call->newer)
        write_frame(calls, shard_index, call->type, call->id, call->write_body, call->arg);
}

void calls_link_down(struct calls *calls, unsigned shard_index)
{
    struct link_state *link = link_of(calls, shard_index);
    link->up = false;
    drop_output(link);
}

bool calls_link_is_up(const struct calls *calls, unsigned shard_index)
{
    kv_assert(shard_index < calls->shard_count);
    return calls->links[shard_index].up;
}

uint64_t calls_link_generation(const struct calls *calls, unsigned shard_index)
{
    kv_assert(shard_index < calls->shard_count);
    return calls->links[shard_index].generation;
}

struct kv_buf *calls_output(struct calls *calls, unsigned shard_index)
{
    return &link_of(calls, shard_index)->output;
}

struct kv_slice calls_next_output(struct calls *calls, unsigned shard_index, int *fd)
{
    struct link_state *link = link_of(calls, shard_index);
    const struct attached *next = link->attached;
    size_t end = link->output.bytes;
    *fd = -1;
    if (next != NULL && next->at == link->sent) {
        *fd = body_file_fd(next->file);
        next = next->next;
    }
    if (next != NULL)
        end = next->at;
    return kv_slice(link->output.data + link->sent, end - link->sent);
}

/* What was sent leaves the buffer when it is half of it: each byte is moved once at most. */
void calls_sent(struct calls *calls, unsigned shard_index, size_t bytes)
{
    struct link_state *link = link_of(calls, shard_index);
    struct attached *attached = link->attached;
    if (attached != NULL && attached->at == link->sent)
        detach(link, attached);
    link->sent += bytes;
    if (link->sent * 2 < link->output.bytes)
        return;
    kv_buf_consume(&link->output, link->sent);
    DL_FOREACH(link->attached, attached)
        attached->at -= link->sent;
    link->sent = 0;
}

size_t calls_waiting(const struct calls *calls, unsigned shard_index)
{
    kv_assert(shard_index < calls->shard_count);
    return calls->links[shard_index].waiting;
}

/* A shard may speak only when it was asked: an id that was never given out, one of another shard's calls, or an answer to
 * another question is a broken peer. An id that is not in the table any more belonged to a cancelled call. */
static enum kv_err take_answer(struct calls *calls, unsigned shard_index, const struct kv_frame *frame)
{
    if (frame->request_id == 0 || frame->request_id >= calls->id_next)
        return KV_INVALID;
    struct call *call = table_find(calls, frame->request_id);
    if (call == NULL)
        return KV_OK;
    if (call->shard_index != shard_index || kv_msg_answer(call->type) != (uint32_t)frame->type)
        return KV_INVALID;
    take_out(calls, call); /* first: on_answer may send, cancel and free what it likes */
    struct call answered = *call;
    free(call);
    answered.on_answer(answered.arg, frame->body);
    return KV_OK;
}

enum kv_err calls_input(struct calls *calls, unsigned shard_index, struct kv_slice bytes, size_t *used)
{
    size_t done = 0;
    enum kv_err err = KV_OK;
    while (err == KV_OK && done < bytes.bytes) {
        struct kv_frame frame;
        size_t frame_bytes = 0;
        err = kv_frame_peek(kv_slice(bytes.data + done, bytes.bytes - done), KV_ROLE_SHARD, &frame, &frame_bytes);
        if (err != KV_OK)
            break;
        err = take_answer(calls, shard_index, &frame);
        done += frame_bytes;
    }
    *used = done;
    return err == KV_NOT_FOUND ? KV_OK : err; /* an incomplete frame is no error */
}
