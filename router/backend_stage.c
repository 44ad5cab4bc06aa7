/* router/backend_stage.c -- brings one large content to the shard of its hash, piece by piece, ahead of the transaction that
 * refers to it. A few pieces are under way at a time; each is answered when it is durable. A shard that restarted has
 * given the pieces up (KV_STALE): it begins again. */
#include "backend_internal.h"

#include <stdlib.h>

#include "kv/log.h"
#include "wire/messages.h"

#define PIECE_BYTES (KV_PIECE_BYTES_MAX / KV_BLOB_ROW_BYTES * KV_BLOB_ROW_BYTES)
#define WINDOW 4u

struct slot {
    struct stager *stager;
    struct call *call; /* NULL: free */
    uint64_t offset;
};

struct stager {
    struct backend_call *owner;
    const struct backend_content *content;
    unsigned shard_index;
    struct call *call; /* the STAGE */
    uint64_t object_id;
    uint64_t offset; /* of the next piece to send */
    struct slot slots[WINDOW];
    stager_on_staged on_staged;
    void *arg;
};

static struct calls *calls_of(const struct stager *stager)
{
    return stager->owner->backend->calls;
}

static void cancel_pieces(struct stager *stager)
{
    for (unsigned i = 0; i < WINDOW; i++) {
        calls_cancel(calls_of(stager), stager->slots[i].call);
        stager->slots[i].call = NULL;
    }
}

static void stager_end(struct stager *stager, enum kv_err err)
{
    cancel_pieces(stager);
    stager->on_staged(stager->arg, err, stager->object_id);
    free(stager);
}

static void write_id(void *arg, struct kv_buf *buf)
{
    const struct stager *stager = arg;
    kv_put_id(buf, stager->object_id);
}

void stager_cancel(struct stager *stager)
{
    if (stager == NULL)
        return;
    cancel_pieces(stager);
    calls_cancel(calls_of(stager), stager->call);
    if (stager->object_id != 0)
        calls_tell(calls_of(stager), stager->shard_index, KV_MSG_STAGE_DROP, write_id, stager);
    free(stager);
}

static void ask_stage(struct stager *stager);

static struct kv_slice piece_at(const struct stager *stager, uint64_t offset)
{
    uint64_t left = stager->content->stored.bytes - offset;
    return kv_slice(stager->content->stored.data + offset, (size_t)(left < PIECE_BYTES ? left : PIECE_BYTES));
}

static void write_piece(void *arg, struct kv_buf *buf)
{
    const struct slot *slot = arg;
    kv_put_stage_data(
        buf, &(struct kv_msg_stage_data){slot->stager->object_id, slot->offset, piece_at(slot->stager, slot->offset)});
}

static void send_pieces(struct stager *stager);

static void on_piece_done(void *arg, struct kv_slice body)
{
    struct slot *slot = arg;
    struct stager *stager = slot->stager;
    slot->call = NULL;
    enum kv_err err;
    enum kv_err decoded = kv_get_done(body, &err);
    kv_assert(decoded == KV_OK);
    if (err == KV_STALE) {
        cancel_pieces(stager);
        ask_stage(stager);
        return;
    }
    if (err != KV_OK) {
        stager_end(stager, err);
        return;
    }
    backend_call_renew(stager->owner);
    send_pieces(stager);
}

/* Fills the window; through when nothing is left and nothing under way. */
static void send_pieces(struct stager *stager)
{
    bool under_way = false;
    for (unsigned i = 0; i < WINDOW; i++) {
        struct slot *slot = &stager->slots[i];
        if (slot->call == NULL && stager->offset < stager->content->stored.bytes) {
            *slot = (struct slot){stager, NULL, stager->offset};
            stager->offset += piece_at(stager, slot->offset).bytes;
            slot->call = calls_send(calls_of(stager), stager->shard_index, KV_MSG_STAGE_DATA, true, write_piece,
                                    on_piece_done, slot);
        }
        under_way = under_way || slot->call != NULL;
    }
    if (!under_way)
        stager_end(stager, KV_OK);
}

static void on_stage(void *arg, struct kv_slice body)
{
    struct stager *stager = arg;
    stager->call = NULL;
    struct kv_msg_staged staged;
    enum kv_err err = kv_get_staged(body, &staged);
    kv_assert(err == KV_OK);
    stager->object_id = staged.object_id;
    stager->offset = 0;
    if (staged.err != KV_OK || staged.existed)
        stager_end(stager, staged.err);
    else
        send_pieces(stager);
}

static void write_stage(void *arg, struct kv_buf *buf)
{
    const struct stager *stager = arg;
    const struct backend_content *content = stager->content;
    kv_put_stage(buf, &(struct kv_msg_stage){content->hash, content->size, content->codec, content->stored.bytes});
}

static void ask_stage(struct stager *stager)
{
    stager->object_id = 0;
    stager->call = calls_send(calls_of(stager), stager->shard_index, KV_MSG_STAGE, true, write_stage, on_stage, stager);
}

struct stager *stager_new(struct backend_call *call, const struct backend_content *content, stager_on_staged on_staged,
                          void *arg)
{
    struct stager *stager = kv_alloc_zero(1, sizeof *stager);
    stager->owner = call;
    stager->content = content;
    stager->shard_index = backend_shard_of(call->backend, &content->hash);
    stager->on_staged = on_staged;
    stager->arg = arg;
    ask_stage(stager);
    return stager;
}
