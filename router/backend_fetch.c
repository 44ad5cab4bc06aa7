/* router/backend_fetch.c -- pieces of large contents, from the shard that holds the object for us. FETCHES_MAX are under way from a
 * shard, whoever asks for them: so a small request finds no more than these in front of it, in the shard's turn, on the link and
 * in ours, while a hundred clients ask for large values at once. A shard that restarted has let go of the object: it is opened again.
 * A piece comes in a slot of the link's arena if there is one (backend_arena.c): whoever asked sends it from there. */
#include "backend_internal.h"

#include <stdlib.h>
#include <utlist.h>

#include "kv/log.h"
#include "wire/messages.h"

#define FETCHES_MAX 3u /* one read at the shard, one on the link, one on its way to its client */

struct fetch_call {
    struct backend_call head;
    struct backend_hold *hold; /* the caller's; not to be touched once it has cancelled */
    struct kv_hash hash;
    struct kv_msg_fetch fetch;
    struct call *call;
    struct arena_slot slot; /* named to the shard, or none */
    bool reopening;         /* the call is an OPEN */
    bool waiting;           /* in the room's list: there is no call yet */
    bool counted;           /* the call is one of the room's pieces */
    struct fetch_call *room_prev, *room_next;
    backend_on_piece on_piece;
    void *arg;
};

static unsigned shard_of(const struct fetch_call *fetch)
{
    return backend_shard_of(fetch->head.backend, &fetch->hash);
}

static struct fetch_room *room_of(const struct fetch_call *fetch)
{
    struct backend *backend = fetch->head.backend;
    return &backend->fetch_rooms[shard_of(fetch)];
}

static void send_fetch(struct fetch_call *fetch);

/* The piece came, or is not waited for any more: the next one may be asked for. Not one that was cancelled: its object may be
 * closed. */
static void leave_room(struct fetch_call *fetch)
{
    struct fetch_room *room = room_of(fetch);
    if (fetch->waiting)
        DL_DELETE2(room->waiting, fetch, room_prev, room_next);
    fetch->waiting = false;
    room->pieces -= fetch->counted;
    fetch->counted = false;
    while (room->pieces < FETCHES_MAX && room->waiting != NULL) {
        struct fetch_call *first = room->waiting;
        DL_DELETE2(room->waiting, first, room_prev, room_next);
        first->waiting = false;
        if (first->head.wanted)
            send_fetch(first);
    }
}

static void fetch_answer(struct fetch_call *fetch, enum kv_err err, struct kv_slice bytes)
{
    leave_room(fetch);
    if (fetch->head.wanted)
        fetch->on_piece(fetch->arg, err, bytes, &fetch->slot);
    arena_give_back(&fetch->slot);
    if (fetch->reopening)
        backend_abandon_open(fetch->head.backend, fetch->call, &fetch->hash);
    else
        calls_cancel(fetch->head.backend->calls, fetch->call);
    backend_call_end(&fetch->head);
}

static void fetch_fail(struct backend_call *head, enum kv_err err)
{
    fetch_answer((struct fetch_call *)head, err, kv_slice(NULL, 0));
}

static void ask_piece(struct fetch_call *fetch);

static void write_reopen(void *arg, struct kv_buf *buf)
{
    const struct fetch_call *fetch = arg;
    kv_put_open(buf, &(struct kv_msg_open){.hash = fetch->hash, .bytes_max = KV_BLOB_ROW_BYTES});
}

/* The shard was restarted and let go: from now on the caller has the new hold. */
static void on_reopened(void *arg, struct kv_slice body)
{
    struct fetch_call *fetch = arg;
    fetch->call = NULL;
    fetch->reopening = false;
    struct kv_msg_object object;
    enum kv_err err = kv_get_object(body, &object);
    kv_assert(err == KV_OK);
    bool held = object.err == KV_OK && object.object.held;
    struct backend_hold hold = backend_hold_now(fetch->head.backend, &fetch->hash, object.object.object_id);
    if (held && fetch->head.wanted && hold.object_id == fetch->fetch.object_id) {
        *fetch->hold = hold;
        ask_piece(fetch);
        return;
    }
    if (held)
        backend_close(fetch->head.backend, &hold);
    fetch_answer(fetch, KV_STALE, kv_slice(NULL, 0));
}

static void on_piece(void *arg, struct kv_slice body)
{
    struct fetch_call *fetch = arg;
    fetch->call = NULL;
    struct kv_msg_piece piece;
    enum kv_err err = kv_get_piece(body, &piece);
    kv_assert(err == KV_OK);
    if (!backend_take_from_slot(&fetch->slot, piece.in_slot ? piece.slot_bytes : 0, &piece.bytes))
        piece.err = KV_CORRUPT; /* nobody named one, or a shorter one */
    if (piece.err != KV_STALE ||
        !fetch->head.wanted) { /* cancelled: the caller has closed already, nobody would again */
        fetch_answer(fetch, piece.err, piece.bytes);
        return;
    }
    struct backend *backend = fetch->head.backend;
    leave_room(fetch);
    fetch->reopening = true;
    fetch->call = calls_send(backend->calls, shard_of(fetch), KV_MSG_OPEN, true, write_reopen, on_reopened, fetch);
}

/* ---- asking --------------------------------------------------------------------------------------------------- */

static void write_fetch(void *arg, struct kv_buf *buf)
{
    struct fetch_call *fetch = arg;
    fetch->fetch.slot.named =
        backend_take_slot(fetch->head.backend, shard_of(fetch), fetch->fetch.bytes_max, &fetch->slot);
    fetch->fetch.slot.first = fetch->slot.first;
    kv_put_fetch(buf, &fetch->fetch);
}

static void send_fetch(struct fetch_call *fetch)
{
    struct backend *backend = fetch->head.backend;
    backend_renew_arena(backend, shard_of(fetch));
    room_of(fetch)->pieces++;
    fetch->counted = true;
    fetch->call = calls_send(backend->calls, shard_of(fetch), KV_MSG_FETCH, true, write_fetch, on_piece, fetch);
}

static void ask_piece(struct fetch_call *fetch)
{
    struct fetch_room *room = room_of(fetch);
    if (room->pieces < FETCHES_MAX) {
        send_fetch(fetch);
        return;
    }
    DL_APPEND2(room->waiting, fetch, room_prev, room_next);
    fetch->waiting = true;
}

struct backend_call *backend_fetch(struct backend *backend, struct backend_hold *hold, uint64_t offset,
                                   uint64_t bytes_max, backend_on_piece on_fetched, void *arg)
{
    struct fetch_call *fetch = backend_call_new(backend, sizeof *fetch, fetch_fail);
    fetch->hold = hold;
    fetch->hash = hold->hash;
    fetch->fetch = (struct kv_msg_fetch){.object_id = hold->object_id, .offset = offset, .bytes_max = bytes_max};
    fetch->on_piece = on_fetched;
    fetch->arg = arg;
    ask_piece(fetch);
    return &fetch->head;
}

static void write_close(void *arg, struct kv_buf *buf)
{
    kv_put_id(buf, *(const uint64_t *)arg);
}

void backend_close(struct backend *backend, const struct backend_hold *hold)
{
    unsigned shard_index = backend_shard_of(backend, &hold->hash);
    uint64_t object_id = hold->object_id;
    if (hold->link_generation == calls_link_generation(backend->calls, shard_index))
        calls_tell(backend->calls, shard_index, KV_MSG_CLOSE, write_close, &object_id);
}
