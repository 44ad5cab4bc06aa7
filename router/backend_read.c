/* router/backend_read.c -- reads: the key's row at its shard, then the content at the shard of its hash.
 * A content of up to ROW_BYTES_MAX comes with the row if it lives there, too. Of larger ones the row tells how large they are: then a slot
 * is taken for what the first frame needs (backend_arena.c), and the OPEN, to the same shard or another, names it.
 * Row and reference count are of one moment: one shard answers both at once; where two do, the marks tell whether the key was
 * written between the two answers, and then both are asked again, READ_TRIES_MAX times in all. Row and content belong together anyhow.
 * An answer that makes the shard hold an object is waited for even when nobody wants it any more, so that it can be closed. */
#include "backend_internal.h"

#include <stdlib.h>

#include "kv/log.h"
#include "kv/placement.h"
#include "marks.h"
#include "wire/messages.h"

enum {
    READ_TRIES_MAX = 4,                    /* a key that is written without end is read all the same */
    ROW_BYTES_MAX = 2 * KV_BLOB_ROW_BYTES, /* cheaper to copy than to ask for once more */
};

struct read_call {
    struct backend_call head;
    uint8_t *key;
    size_t key_bytes;
    uint64_t bytes_max;
    uint64_t since;       /* as marks.h wants it */
    unsigned tries;       /* of the row and its count */
    unsigned shard_index; /* where the request under way is */
    struct call *call;
    struct arena_slot slot; /* named to the shard, or none */
    struct kv_buf row_body; /* of the ROW, when the content did not come along */
    struct kv_row row;
    backend_on_value on_value;
    void *arg;
};

static void read_end(struct read_call *read)
{
    calls_cancel(read->head.backend->calls, read->call);
    arena_give_back(&read->slot);
    free(read->key);
    kv_buf_free(&read->row_body);
    backend_call_end(&read->head);
}

struct backend_hold backend_hold_now(const struct backend *backend, const struct kv_hash *hash, uint64_t object_id)
{
    return (struct backend_hold){*hash, object_id,
                                 calls_link_generation(backend->calls, backend_shard_of(backend, hash))};
}

static struct backend_value value_of(struct read_call *read, const struct kv_row *row, const struct kv_object *object)
{
    return (struct backend_value){*row, *object, backend_hold_now(read->head.backend, &row->hash, object->object_id),
                                  &read->slot};
}

static void read_answer(struct read_call *read, enum kv_err err, const struct backend_value *value)
{
    if (read->head.wanted)
        read->on_value(read->arg, err, value);
    else if (value != NULL && value->object.held)
        backend_close(read->head.backend, &value->hold);
    read_end(read);
}

static void read_fail(struct backend_call *head, enum kv_err err)
{
    struct read_call *read = (struct read_call *)head;
    if (head->wanted)
        read->on_value(read->arg, err, NULL);
    head->wanted = false;
    head->failed = KV_OK;
    head->deadline_ms = UINT64_MAX;
    bool may_hold =
        read->call != NULL && read->bytes_max > 0 && calls_link_is_up(head->backend->calls, read->shard_index);
    if (!may_hold)
        read_end(read);
}

static void ask_row(struct read_call *read);

/* Of the front of the stored form: the index, and the first frame if it is no larger than its content and goes into the same slot. */
static uint64_t first_bytes(const struct read_call *read)
{
    uint64_t size = read->row.size, bytes = codec_index_bytes(size);
    uint64_t frame = size < KV_CONTENT_FRAME_BYTES ? size : KV_CONTENT_FRAME_BYTES;
    if (bytes + frame <= KV_SLOT_BYTES_MAX)
        bytes += frame;
    return bytes < read->bytes_max ? bytes : read->bytes_max;
}

static void write_open(void *arg, struct kv_buf *buf)
{
    struct read_call *read = arg;
    uint64_t bytes = first_bytes(read);
    struct kv_msg_open open = {.hash = read->row.hash};
    open.slot.named =
        bytes > ROW_BYTES_MAX && backend_take_slot(read->head.backend, read->shard_index, bytes, &read->slot);
    open.slot.first = read->slot.first;
    open.bytes_max = open.slot.named || bytes < BACKEND_MESSAGE_BYTES_MAX ? bytes : BACKEND_MESSAGE_BYTES_MAX;
    kv_put_open(buf, &open);
}

/* Then the row is still the key's, now that its content was counted. */
static bool key_is_unchanged(const struct read_call *read)
{
    struct marks *marks = read->head.backend->marks;
    uint64_t word;
    if (marks == NULL)
        return true;
    uint32_t slot = marks_slot(marks, marks_hash(marks, kv_slice(read->key, read->key_bytes)));
    return marks_quiet(marks, slot, read->since, &word);
}

/* A content that is gone was replaced between the two steps: the row is read again. */
static void on_object(void *arg, struct kv_slice body)
{
    struct read_call *read = arg;
    read->call = NULL;
    struct kv_msg_object object;
    enum kv_err err = kv_get_object(body, &object);
    kv_assert(err == KV_OK);
    if (!backend_take_from_slot(&read->slot, object.slot_bytes, &object.object.bytes))
        object.err = KV_CORRUPT; /* nobody named one, or a shorter one */
    if (object.err == KV_NOT_FOUND && read->head.wanted) {
        ask_row(read);
        return;
    }
    struct backend_value value = value_of(read, &read->row, &object.object);
    if (object.err == KV_OK && read->head.wanted && ++read->tries < READ_TRIES_MAX && !key_is_unchanged(read)) {
        if (object.object.held)
            backend_close(read->head.backend, &value.hold);
        ask_row(read);
        return;
    }
    read_answer(read, object.err, object.err == KV_OK ? &value : NULL);
}

/* It came along, or none of it is wanted. */
static bool has_content(const struct read_call *read, const struct kv_msg_row *row)
{
    return row->has_object && (read->bytes_max == 0 || row->object.bytes.bytes == row->object.stored_bytes);
}

static void open_content(struct read_call *read)
{
    struct backend *backend = read->head.backend;
    read->shard_index = backend_shard_of(backend, &read->row.hash);
    if (first_bytes(read) > ROW_BYTES_MAX)
        backend_renew_arena(backend, read->shard_index);
    read->call = calls_send(backend->calls, read->shard_index, KV_MSG_OPEN, true, write_open, on_object, read);
}

static void on_row(void *arg, struct kv_slice body)
{
    struct read_call *read = arg;
    read->call = NULL;
    read->row_body.bytes = 0;
    struct kv_msg_row row;
    enum kv_err err = kv_get_row(body, &row);
    kv_assert(err == KV_OK);
    if (row.err != KV_OK || has_content(read, &row)) {
        struct backend_value value = value_of(read, &row.row, &row.object);
        read_answer(read, row.err, row.err == KV_OK ? &value : NULL);
        return;
    }
    kv_buf_append(&read->row_body, body); /* the row's content type must outlive this frame */
    err = kv_get_row(kv_buf_peek(&read->row_body), &row);
    kv_assert(err == KV_OK && row.has_row);
    read->row = row.row;
    open_content(read);
}

static void write_read(void *arg, struct kv_buf *buf)
{
    const struct read_call *read = arg;
    uint64_t bytes_max = read->bytes_max < ROW_BYTES_MAX ? read->bytes_max : ROW_BYTES_MAX;
    kv_put_read(buf, &(struct kv_msg_read){kv_slice(read->key, read->key_bytes), bytes_max});
}

static void ask_row(struct read_call *read)
{
    struct backend *backend = read->head.backend;
    arena_give_back(&read->slot);
    read->since = backend->marks == NULL ? 0 : marks_now(backend->marks);
    read->shard_index = kv_shard_of(kv_slice(read->key, read->key_bytes), backend->shard_count);
    read->call = calls_send(backend->calls, read->shard_index, KV_MSG_READ, false, write_read, on_row, read);
    if (read->call == NULL)
        backend_call_fail_later(&read->head, KV_OVERLOADED);
}

struct backend_call *backend_read(struct backend *backend, struct kv_slice key, uint64_t bytes_max,
                                  backend_on_value on_value, void *arg)
{
    struct read_call *read = backend_call_new(backend, sizeof *read, read_fail);
    read->key = kv_copy(key);
    read->key_bytes = key.bytes;
    read->bytes_max = bytes_max;
    read->on_value = on_value;
    read->arg = arg;
    ask_row(read);
    return &read->head;
}

/* ---- an OPEN that nobody waits for --------------------------------------------------------------------------- */

struct abandoned {
    struct backend *backend;
    struct kv_hash hash;
};

/* Sent again over a new link it wants no bytes, so that nothing is held. */
static void write_abandoned(void *arg, struct kv_buf *buf)
{
    const struct abandoned *abandoned = arg;
    kv_put_open(buf, &(struct kv_msg_open){.hash = abandoned->hash});
}

static void on_abandoned(void *arg, struct kv_slice body)
{
    struct abandoned *abandoned = arg;
    struct kv_msg_object object;
    enum kv_err err = kv_get_object(body, &object);
    kv_assert(err == KV_OK);
    struct backend_hold hold = backend_hold_now(abandoned->backend, &abandoned->hash, object.object.object_id);
    if (object.err == KV_OK && object.object.held)
        backend_close(abandoned->backend, &hold);
    free(abandoned);
}

void backend_abandon_open(struct backend *backend, struct call *call, const struct kv_hash *hash)
{
    if (call == NULL)
        return;
    if (!calls_link_is_up(backend->calls, backend_shard_of(backend, hash))) {
        calls_cancel(backend->calls, call); /* what was held ended with the link */
        return;
    }
    struct abandoned *abandoned = kv_alloc(sizeof *abandoned);
    *abandoned = (struct abandoned){backend, *hash};
    calls_hand_over(call, write_abandoned, on_abandoned, abandoned);
}
