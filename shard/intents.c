/* shard/intents.c -- see intents.h. */
#include "intents.h"

#include <utlist.h>

struct intent *intents_find(const struct intents *intents, uint64_t txn_id)
{
    struct intent *intent = NULL;
    HASH_FIND(hh, intents->open, &txn_id, sizeof txn_id, intent);
    return intent;
}

struct done *intents_find_done(const struct intents *intents, uint64_t txn_id)
{
    struct done *done = NULL;
    HASH_FIND(hh, intents->done, &txn_id, sizeof txn_id, done);
    return done;
}

static size_t intent_bytes(const struct intent *intent)
{
    return sizeof *intent + intent->ops.bytes + intent->existed.bytes;
}

static size_t done_bytes(const struct done *done)
{
    return sizeof *done + done->existed.bytes;
}

struct intent *intents_add(struct intents *intents, uint64_t txn_id, kv_shard_set participants, uint64_t position,
                           struct kv_buf *ops, size_t op_count, struct kv_buf *existed)
{
    struct intent *intent = kv_alloc_zero(1, sizeof *intent);
    intent->txn_id = txn_id;
    intent->participants = participants;
    intent->position = position;
    intent->sequence = ++intents->sequence_last;
    intent->ops = kv_buf_take(ops);
    intent->op_count = op_count;
    intent->existed = kv_buf_take(existed);
    HASH_ADD(hh, intents->open, txn_id, sizeof intent->txn_id, intent);
    intents->bytes += intent_bytes(intent);
    return intent;
}

struct parked *intents_remove(struct intents *intents, struct intent *intent)
{
    struct parked *parked = intent->parked;
    HASH_DEL(intents->open, intent);
    intents->bytes -= intent_bytes(intent);
    kv_buf_free(&intent->ops);
    kv_buf_free(&intent->existed);
    free(intent);
    return parked;
}

void intents_add_done(struct intents *intents, uint64_t txn_id, struct kv_buf *existed)
{
    struct done *done = kv_alloc_zero(1, sizeof *done);
    done->txn_id = txn_id;
    if (existed != NULL)
        done->existed = kv_buf_take(existed);
    HASH_ADD(hh, intents->done, txn_id, sizeof done->txn_id, done);
    intents->bytes += done_bytes(done);
}

static void remove_done(struct intents *intents, struct done *done)
{
    HASH_DEL(intents->done, done);
    intents->bytes -= done_bytes(done);
    kv_buf_free(&done->existed);
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
    HASH_ITER(hh, intents->done, done, after)
    {
        if (may_go(done, from_txn_id, below_txn_id))
            remove_done(intents, done);
    }
    mark_open(intents, open, false);
}

struct kv_list intent_ops(const struct intent *intent)
{
    return (struct kv_list){kv_buf_peek(&intent->ops), intent->op_count};
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
        kv_pack_bin(out, kv_buf_peek(&intent->existed));
        kv_pack_array(out, intent->op_count);
        kv_buf_append(out, kv_buf_peek(&intent->ops));
    }
    kv_pack_array(out, HASH_COUNT(intents->done));
    for (const struct done *done = intents->done; done != NULL; done = done->hh.next) {
        kv_pack_array(out, 2);
        kv_pack_uint(out, done->txn_id);
        kv_pack_bin(out, kv_buf_peek(&done->existed));
    }
}

static struct kv_buf copy_of(struct kv_slice bytes)
{
    struct kv_buf copy = {0};
    kv_buf_append(&copy, bytes);
    return copy;
}

static void decode_intent(struct kv_unpack *in, struct intents *out)
{
    kv_unpack_array_of(in, 5);
    uint64_t txn_id = kv_unpack_uint(in, UINT64_MAX);
    kv_shard_set participants = kv_unpack_uint(in, UINT64_MAX);
    uint64_t position = kv_unpack_uint(in, UINT64_MAX);
    struct kv_slice existed = kv_unpack_bin(in, SIZE_MAX);
    size_t op_count = kv_unpack_array(in, SIZE_MAX);
    const uint8_t *begin = in->at;
    for (size_t i = 0; i < op_count && !in->bad; i++)
        kv_unpack_skip(in, 3);
    if (in->bad)
        return;
    struct kv_buf ops_copy = copy_of(kv_slice(begin, (size_t)(in->at - begin))), existed_copy = copy_of(existed);
    intents_add(out, txn_id, participants, position, &ops_copy, op_count, &existed_copy);
}

static void decode_done(struct kv_unpack *in, struct intents *out)
{
    kv_unpack_array_of(in, 2);
    uint64_t txn_id = kv_unpack_uint(in, UINT64_MAX);
    struct kv_slice existed = kv_unpack_bin(in, SIZE_MAX);
    if (in->bad)
        return;
    struct kv_buf existed_copy = copy_of(existed);
    intents_add_done(out, txn_id, &existed_copy);
}

enum kv_err intents_decode(struct kv_slice encoded, struct intents *out)
{
    if (encoded.bytes == 0)
        return KV_OK;
    struct kv_unpack in = kv_unpack_start(encoded);
    kv_unpack_array_of(&in, 2);
    size_t count = kv_unpack_array(&in, SIZE_MAX);
    for (size_t i = 0; i < count && !in.bad; i++)
        decode_intent(&in, out);
    count = kv_unpack_array(&in, SIZE_MAX);
    for (size_t i = 0; i < count && !in.bad; i++)
        decode_done(&in, out);
    return kv_unpack_end(&in) == KV_OK ? KV_OK : KV_CORRUPT;
}

void intents_clear(struct intents *intents)
{
    struct intent *intent, *after;
    HASH_ITER(hh, intents->open, intent, after)
    {
        struct parked *list = intents_remove(intents, intent), *parked, *next;
        DL_FOREACH_SAFE(list, parked, next)
        {
            parked_free(&parked);
        }
    }
    struct done *done, *later;
    HASH_ITER(hh, intents->done, done, later)
    {
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
