/* shard/intents.c -- see intents.h. */
#include "intents.h"

#include <stdlib.h>
#include <utlist.h>

/* Ids are given out one after the other by our own router: without a hash each has a bucket of its own, beside its neighbours in time. */
#undef HASH_BKT_CAPACITY_THRESH
#define HASH_BKT_CAPACITY_THRESH 2U

/* Most that come are the newest ever: nothing is known of them. */
static bool is_new(const struct intents *intents, uint64_t txn_id)
{
    return txn_id > intents->txn_id_last;
}

static void saw(struct intents *intents, uint64_t txn_id)
{
    if (is_new(intents, txn_id))
        intents->txn_id_last = txn_id;
}

struct intent *intents_find(const struct intents *intents, uint64_t txn_id)
{
    struct intent *intent = NULL;
    if (!is_new(intents, txn_id))
        HASH_FIND_BYHASHVALUE(hh, intents->open, &txn_id, sizeof txn_id, (unsigned)txn_id, intent);
    return intent;
}

struct done *intents_find_done(const struct intents *intents, uint64_t txn_id)
{
    struct done *done = NULL;
    if (!is_new(intents, txn_id))
        HASH_FIND_BYHASHVALUE(hh, intents->done, &txn_id, sizeof txn_id, (unsigned)txn_id, done);
    return done;
}

/* What the operation points to and an intent keeps: contents are in the overlay. */
static size_t borrowed_bytes(const struct kv_op *op)
{
    size_t key_bytes = kv_op_is_on_key(op) ? op->key.bytes : 0;
    return key_bytes + (op->kind == KV_OP_SET ? op->row.content_type.bytes : 0);
}

/* Copies the slice to `*at`, which moves behind it. */
static struct kv_slice keep_slice(struct kv_slice slice, uint8_t **at)
{
    struct kv_slice kept = kv_slice(*at, slice.bytes);
    if (slice.bytes > 0)
        memcpy(*at, slice.data, slice.bytes);
    *at += slice.bytes;
    return kept;
}

static struct kv_op keep_op(const struct kv_op *op, uint8_t **at)
{
    struct kv_op kept = *op;
    if (op->kind == KV_OP_ADD)
        kept.has_bytes = false;
    if (kv_op_is_on_key(op))
        kept.key = keep_slice(op->key, at);
    if (op->kind == KV_OP_SET)
        kept.row.content_type = keep_slice(op->row.content_type, at);
    return kept;
}

struct intent *intents_add(struct intents *intents, const struct kv_msg_prepare *prepare, uint64_t position,
                           struct kv_slice existed)
{
    size_t count = prepare->ops.count;
    size_t bytes = sizeof(struct intent) + count * sizeof(struct kv_op) + existed.bytes;
    for (size_t i = 0; i < count; i++)
        bytes += borrowed_bytes(&prepare->ops.at[i]);
    struct intent *intent = kv_alloc(bytes);
    *intent = (struct intent){.txn_id = prepare->txn_id,
                              .participants = prepare->participants,
                              .position = position,
                              .sequence = ++intents->sequence_last,
                              .ops = {(struct kv_op *)(intent + 1), count, count},
                              .bytes = bytes};
    uint8_t *at = (uint8_t *)(intent->ops.at + count);
    for (size_t i = 0; i < count; i++)
        intent->ops.at[i] = keep_op(&prepare->ops.at[i], &at);
    intent->existed = keep_slice(existed, &at);
    saw(intents, intent->txn_id);
    HASH_ADD_BYHASHVALUE(hh, intents->open, txn_id, sizeof intent->txn_id, (unsigned)intent->txn_id, intent);
    intents->bytes += bytes;
    return intent;
}

struct parked *intents_remove(struct intents *intents, struct intent *intent)
{
    struct parked *parked = intent->parked;
    HASH_DEL(intents->open, intent);
    intents->bytes -= intent->bytes;
    free(intent);
    return parked;
}

void intents_add_done(struct intents *intents, uint64_t txn_id, struct kv_slice existed)
{
    struct done *done = kv_alloc_zero(1, sizeof *done + existed.bytes);
    done->txn_id = txn_id;
    done->existed_bytes = existed.bytes;
    if (existed.bytes > 0)
        memcpy(done->existed, existed.data, existed.bytes);
    saw(intents, txn_id);
    HASH_ADD_BYHASHVALUE(hh, intents->done, txn_id, sizeof done->txn_id, (unsigned)txn_id, done);
    intents->bytes += sizeof *done + existed.bytes;
}

static void remove_done(struct intents *intents, struct done *done)
{
    HASH_DEL(intents->done, done);
    intents->bytes -= sizeof *done + done->existed_bytes;
    free(done);
}

/* Marks those of `open` that are done here. */
static void mark_open(const struct intents *intents, struct kv_list open, bool is_open)
{
    uint64_t txn_id;
    while (kv_next_uint(&open, &txn_id)) {
        struct done *done = intents_find_done(intents, txn_id);
        if (done != NULL)
            done->open = is_open;
    }
}

static bool may_go(const struct done *done, uint64_t from_txn_id, uint64_t below_txn_id)
{
    return done->txn_id >= from_txn_id && done->txn_id < below_txn_id && !done->open;
}

size_t intents_forgettable(struct intents *intents, uint64_t from_txn_id, uint64_t below_txn_id, struct kv_list open,
                           struct kv_buf *kept, size_t *kept_count)
{
    size_t count = 0;
    *kept_count = 0;
    mark_open(intents, open, true);
    for (const struct done *done = intents->done; done != NULL; done = done->hh.next) {
        count += may_go(done, from_txn_id, below_txn_id);
        *kept_count += done->open;
        if (done->open)
            kv_pack_uint(kept, done->txn_id);
    }
    mark_open(intents, open, false);
    return count;
}

void intents_forget(struct intents *intents, uint64_t from_txn_id, uint64_t below_txn_id, struct kv_list open)
{
    struct done *done, *after;
    mark_open(intents, open, true);
    HASH_ITER(hh, intents->done, done, after) {
        if (may_go(done, from_txn_id, below_txn_id))
            remove_done(intents, done);
    }
    mark_open(intents, open, false);
}

/* [[txn_id, participants, position, existed, ops]…], [[txn_id, existed]…] */
void intents_encode(const struct intents *intents, struct kv_buf *out)
{
    kv_pack_array(out, 2);
    kv_pack_array(out, HASH_COUNT(intents->open));
    for (const struct intent *intent = intents->open; intent != NULL; intent = intent->hh.next) {
        kv_pack_array(out, 5);
        kv_pack_uint(out, intent->txn_id);
        kv_pack_uint(out, intent->participants);
        kv_pack_uint(out, intent->position);
        kv_pack_bin(out, intent->existed);
        kv_put_ops(out, &intent->ops);
    }
    kv_pack_array(out, HASH_COUNT(intents->done));
    for (const struct done *done = intents->done; done != NULL; done = done->hh.next) {
        kv_pack_array(out, 2);
        kv_pack_uint(out, done->txn_id);
        kv_pack_bin(out, kv_slice(done->existed, done->existed_bytes));
    }
}

static void decode_intent(struct kv_unpack *in, struct kv_msg_prepare *prepare, struct intents *out)
{
    kv_unpack_array_of(in, 5);
    prepare->txn_id = kv_unpack_uint(in, UINT64_MAX);
    prepare->participants = kv_unpack_uint(in, UINT64_MAX);
    uint64_t position = kv_unpack_uint(in, UINT64_MAX);
    struct kv_slice existed = kv_unpack_bin(in, SIZE_MAX);
    kv_read_ops(in, &prepare->ops);
    if (!in->bad)
        intents_add(out, prepare, position, existed);
}

static void decode_done(struct kv_unpack *in, struct intents *out)
{
    kv_unpack_array_of(in, 2);
    uint64_t txn_id = kv_unpack_uint(in, UINT64_MAX);
    struct kv_slice existed = kv_unpack_bin(in, SIZE_MAX);
    if (!in->bad)
        intents_add_done(out, txn_id, existed);
}

enum kv_err intents_decode(struct kv_slice encoded, struct intents *out)
{
    if (encoded.bytes == 0)
        return KV_OK;
    struct kv_msg_prepare prepare = {0};
    struct kv_unpack in = kv_unpack_start(encoded);
    kv_unpack_array_of(&in, 2);
    size_t count = kv_unpack_array(&in, SIZE_MAX);
    for (size_t i = 0; i < count && !in.bad; i++)
        decode_intent(&in, &prepare, out);
    count = kv_unpack_array(&in, SIZE_MAX);
    for (size_t i = 0; i < count && !in.bad; i++)
        decode_done(&in, out);
    kv_ops_free(&prepare.ops);
    return kv_unpack_end(&in) == KV_OK ? KV_OK : KV_CORRUPT;
}

void intents_clear(struct intents *intents)
{
    struct intent *intent, *after;
    HASH_ITER(hh, intents->open, intent, after) {
        struct parked *list = intents_remove(intents, intent), *parked, *next;
        DL_FOREACH_SAFE(list, parked, next) {
            parked_free(&parked);
        }
    }
    struct done *done, *later;
    HASH_ITER(hh, intents->done, done, later) {
        remove_done(intents, done);
    }
}

struct parked *parked_new(uint64_t session, enum kv_msg type, uint64_t request_id, struct kv_slice body)
{
    struct parked *parked = kv_alloc_zero(1, sizeof *parked);
    parked->session = session;
    parked->type = type;
    parked->request_id = request_id;
    kv_buf_append(&parked->body, body);
    return parked;
}

void parked_free(struct parked **parked)
{
    if (*parked == NULL)
        return;
    kv_buf_free(&(*parked)->body);
    free(*parked);
    *parked = NULL;
}
