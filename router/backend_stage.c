/* router/backend_stage.c -- brings one large content to the shard of its hash, piece by piece, ahead of the transaction that
 * refers to it. Of a content in a file only the descriptor travels, and the shard reads: its bytes pass through no loop.
 * Windows:  WINDOW pieces of a content are under way at a time; each is answered when it is durable. All contents together have
 *           ROOM_BYTES under way to a shard; the others wait their turn, so that uploads fill neither links nor memory.
 * Fails:    a shard that restarted has given the pieces up (KV_STALE): it begins again.
 * Promises: what does not end in a transaction is given up: a shard keeps what is staged for as long as the link lasts. */
#include "backend_internal.h"

#include <stdlib.h>
#include <utlist.h>

#include "kv/log.h"
#include "wire/messages.h"

#define PIECE_BYTES (64u * KV_BLOB_ROW_BYTES) /* 255 KiB: what a small request may find in front of it on the link */
#define WINDOW 8u
#define ROOM_BYTES (4ull * KV_FILE_PIECE_BYTES_MAX)

struct slot {
    struct stager *stager;
    struct call *call; /* NULL: free */
    uint64_t offset;
    size_t bytes;
};

struct stager {
    struct backend *backend;
    struct backend_call *owner; /* NULL: cancelled, waits for its STAGED to give that up */
    const struct backend_content *content;
    struct kv_msg_stage stage; /* a copy: it may be sent again after the content is gone */
    unsigned shard_index;
    struct call *call; /* the STAGE */
    uint64_t object_id;
    uint64_t link_generation; /* that the id belongs to */
    uint64_t offset;          /* of the next piece to send */
    struct slot slots[WINDOW];
    enum kv_err err; /* the content could not be read */
    bool waiting;    /* in the room's list: nothing of it is under way */
    struct stager *prev, *next;
    stager_on_staged on_staged;
    void *arg;
};

static struct calls *calls_of(const struct stager *stager)
{
    return stager->backend->calls;
}

static struct stage_room *room_of(const struct stager *stager)
{
    return &stager->backend->stage_rooms[stager->shard_index];
}

static void slot_clear(struct slot *slot)
{
    struct stage_room *room = room_of(slot->stager);
    kv_assert(room->bytes >= slot->bytes);
    room->bytes -= slot->bytes;
    slot->call = NULL;
}

static void wait_in_room(struct stager *stager)
{
    if (!stager->waiting)
        DL_APPEND(room_of(stager)->waiting, stager);
    stager->waiting = true;
}

static void leave_room(struct stager *stager)
{
    if (stager->waiting)
        DL_DELETE(room_of(stager)->waiting, stager);
    stager->waiting = false;
}

static void send_pieces(struct stager *stager);

static bool has_room(const struct stage_room *room)
{
    return room->bytes < ROOM_BYTES;
}

/* Those who wait move on. None of them ends: each has something to send. */
static void use_room(struct stage_room *room)
{
    while (room->waiting != NULL && has_room(room)) {
        struct stager *first = room->waiting;
        leave_room(first);
        send_pieces(first);
    }
}

static void cancel_pieces(struct stager *stager)
{
    for (unsigned i = 0; i < WINDOW; i++) {
        if (stager->slots[i].call == NULL)
            continue;
        calls_cancel(calls_of(stager), stager->slots[i].call);
        slot_clear(&stager->slots[i]);
    }
    leave_room(stager);
}

static void write_id(void *arg, struct kv_buf *buf)
{
    kv_put_id(buf, *(const uint64_t *)arg);
}

void backend_stage_drop(struct backend *backend, const struct kv_hash *hash, uint64_t object_id,
                        uint64_t link_generation)
{
    unsigned shard_index = backend_shard_of(backend, hash);
    if (object_id != 0 && link_generation == calls_link_generation(backend->calls, shard_index))
        calls_tell(backend->calls, shard_index, KV_MSG_STAGE_DROP, write_id, &object_id);
}

static bool is_current(const struct stager *stager)
{
    return stager->link_generation == calls_link_generation(calls_of(stager), stager->shard_index);
}

static void drop(struct stager *stager)
{
    backend_stage_drop(stager->backend, &stager->stage.hash, stager->object_id, stager->link_generation);
    stager->object_id = 0;
}

static void stager_end(struct stager *stager, enum kv_err err)
{
    struct stage_room *room = room_of(stager);
    cancel_pieces(stager);
    if (err != KV_OK)
        drop(stager);
    stager->on_staged(stager->arg, err, stager->object_id, stager->link_generation);
    free(stager);
    use_room(room);
}

/* A STAGE that is under way cannot be taken back: its answer names what is to be given up. */
void stager_cancel(struct stager *stager)
{
    if (stager == NULL)
        return;
    cancel_pieces(stager);
    use_room(room_of(stager));
    stager->owner = NULL;
    if (stager->call != NULL)
        return;
    drop(stager);
    free(stager);
}

static void ask_stage(struct stager *stager);

/* Whether the piece at `offset` reaches into the file: the index of a huge content has pieces of its own. */
static bool is_in_file(const struct stager *stager, uint64_t offset)
{
    return stager->content->file != NULL && offset + PIECE_BYTES > stager->content->file_from;
}

static size_t piece_bytes(const struct stager *stager, uint64_t offset)
{
    uint64_t left = stager->content->stored.bytes - offset;
    uint64_t bytes_max = is_in_file(stager, offset) ? KV_FILE_PIECE_BYTES_MAX : PIECE_BYTES;
    return (size_t)(left < bytes_max ? left : bytes_max);
}

/* Borrowed until the next piece of any stager of this thread. What cannot be read goes out as zeros, and the stager remembers:
 * what it staged is given up in the end. */
static struct kv_slice read_content(struct stager *stager, uint64_t offset, size_t bytes)
{
    static __thread uint8_t scratch[PIECE_BYTES];
    const struct backend_content *content = stager->content;
    kv_assert(bytes <= sizeof scratch);
    if (bytes == 0)
        return kv_slice(NULL, 0);
    if (content->stored.data != NULL)
        return kv_slice(content->stored.data + offset, bytes);
    enum kv_err err = content->read(content->read_arg, offset, scratch, bytes);
    if (err != KV_OK) {
        memset(scratch, 0, bytes);
        stager->err = err;
    }
    return kv_slice(scratch, bytes);
}

/* A piece that is sent again over a new link: the shard has given the content up, and may have given its id to another one since.
 * No content has id 0, so that the answer is KV_STALE. */
static uint64_t object_id_now(const struct stager *stager)
{
    return is_current(stager) ? stager->object_id : 0;
}

static void write_piece(void *arg, struct kv_buf *buf)
{
    const struct slot *slot = arg;
    struct stager *stager = slot->stager;
    kv_put_stage_data(buf, &(struct kv_msg_stage_data){object_id_now(stager), slot->offset,
                                                       read_content(stager, slot->offset, slot->bytes)});
}

/* The index, or its end, is in memory and travels as bytes. */
static void write_file_piece(void *arg, struct kv_buf *buf)
{
    const struct slot *slot = arg;
    struct stager *stager = slot->stager;
    const struct backend_content *content = stager->content;
    uint64_t before = slot->offset < content->file_from ? content->file_from - slot->offset : 0;
    struct kv_msg_stage_file piece = {.object_id = object_id_now(stager),
                                      .offset = slot->offset,
                                      .bytes = read_content(stager, slot->offset, (size_t)before),
                                      .file_offset = content->file_offset + slot->offset + before - content->file_from,
                                      .file_bytes = slot->bytes - before};
    kv_put_stage_file(buf, &piece);
    body_file_lend(content->file);
    calls_attach(calls_of(stager), stager->shard_index, content->file);
}

static void on_piece_done(void *arg, struct kv_slice body)
{
    struct slot *slot = arg;
    struct stager *stager = slot->stager;
    slot_clear(slot);
    enum kv_err err;
    enum kv_err decoded = kv_get_done(body, &err);
    kv_assert(decoded == KV_OK);
    if (is_in_file(stager, slot->offset))
        body_file_take_back(stager->content->file);
    if (err == KV_STALE) {
        cancel_pieces(stager);
        ask_stage(stager);
        return;
    }
    if (err != KV_OK) {
        stager_end(stager, err);
        return;
    }
    struct stager *other;
    backend_call_renew(stager->owner);
    DL_FOREACH(room_of(stager)->waiting, other)
        backend_call_renew(other->owner); /* they wait for room, not for the shard */
    use_room(room_of(stager));
    send_pieces(stager);
}

static void send_piece(struct stager *stager, struct slot *slot)
{
    bool in_file = is_in_file(stager, stager->offset);
    *slot = (struct slot){stager, NULL, stager->offset, piece_bytes(stager, stager->offset)};
    stager->offset += slot->bytes;
    room_of(stager)->bytes += slot->bytes;
    slot->call = calls_send(calls_of(stager), stager->shard_index, in_file ? KV_MSG_STAGE_FILE : KV_MSG_STAGE_DATA,
                            true, in_file ? write_file_piece : write_piece, on_piece_done, slot);
}

/* Fills the window, as far as the room allows; through when nothing is left and nothing under way. */
static void send_pieces(struct stager *stager)
{
    bool under_way = false;
    for (unsigned i = 0; i < WINDOW; i++) {
        struct slot *slot = &stager->slots[i];
        bool has_more = stager->offset < stager->content->stored.bytes;
        if (slot->call == NULL && has_more && has_room(room_of(stager)))
            send_piece(stager, slot);
        under_way = under_way || slot->call != NULL;
    }
    if (under_way)
        return;
    if (stager->offset < stager->content->stored.bytes)
        wait_in_room(stager);
    else
        stager_end(stager, stager->err);
}

static void on_stage(void *arg, struct kv_slice body)
{
    struct stager *stager = arg;
    stager->call = NULL;
    struct kv_msg_staged staged;
    enum kv_err err = kv_get_staged(body, &staged);
    kv_assert(err == KV_OK);
    stager->object_id = staged.object_id;
    stager->link_generation = calls_link_generation(calls_of(stager), stager->shard_index);
    stager->offset = 0;
    if (stager->owner == NULL)
        stager_cancel(stager);
    else if (staged.err != KV_OK || staged.existed)
        stager_end(stager, staged.err);
    else
        send_pieces(stager);
}

static void write_stage(void *arg, struct kv_buf *buf)
{
    const struct stager *stager = arg;
    kv_put_stage(buf, &stager->stage);
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
    stager->backend = call->backend;
    stager->owner = call;
    stager->content = content;
    stager->stage = (struct kv_msg_stage){content->hash, content->size, content->codec, content->stored.bytes};
    stager->shard_index = backend_shard_of(call->backend, &content->hash);
    stager->on_staged = on_staged;
    stager->arg = arg;
    ask_stage(stager);
    return stager;
}
