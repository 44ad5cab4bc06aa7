/* shard/ledger.c -- see ledger.h. */
#include "ledger.h"

#include <stdlib.h>
#include <uthash.h>

#include "kv/log.h"
#include "rows.h"

/* Contents are chosen by clients, look-ups wait for the memory of each in a bucket: fewer than the usual ten. */
#undef HASH_BKT_CAPACITY_THRESH
#define HASH_BKT_CAPACITY_THRESH 4U

/* Votes given and not decided, per content. Gone when both are zero. */
struct pending {
    struct kv_hash hash;
    uint64_t adds;
    uint64_t drops;
    UT_hash_handle hh;
};

void ledger_init(struct ledger *ledger, const struct core_world *world, const struct store_meta *meta)
{
    *ledger = (struct ledger){.world = world,
                              .active = overlay_new(),
                              .object_id_next = meta->object_id_next,
                              .keys = meta->keys,
                              .objects = meta->objects,
                              .stored_bytes = meta->stored_bytes,
                              .memos = kv_alloc_zero(LEDGER_MEMOS, sizeof *ledger->memos)};
}

void ledger_clear(struct ledger *ledger)
{
    overlay_free(&ledger->active);
    free(ledger->memos);
    struct pending *pending, *after;
    HASH_ITER(hh, ledger->pending, pending, after) {
        HASH_DEL(ledger->pending, pending);
        free(pending);
    }
}

/* ---- lookups -------------------------------------------------------------------------------------------------- */

static const struct overlay_row *find_unapplied(const struct ledger *ledger, enum overlay_table table,
                                                struct kv_slice key)
{
    const struct overlay_row *row = overlay_get(ledger->active, table, key);
    if (row == NULL && ledger->frozen != NULL)
        row = overlay_get(ledger->frozen, table, key);
    return row;
}

size_t ledger_fetch(const struct ledger *ledger, enum overlay_table table, struct kv_slice *keys, size_t count)
{
    uint64_t hashes[CORE_FETCH_MAX];
    size_t absent = 0;
    kv_assert(count <= CORE_FETCH_MAX);
    for (size_t i = 0; i < count; i++) {
        hashes[i] = overlay_hash(keys[i]);
        overlay_fetch_place(ledger->active, table, hashes[i]);
        if (ledger->frozen != NULL)
            overlay_fetch_place(ledger->frozen, table, hashes[i]);
    }
    for (size_t i = 0; i < count; i++) {
        if (!overlay_fetch_row(ledger->active, table, hashes[i]) &&
            (ledger->frozen == NULL || !overlay_fetch_row(ledger->frozen, table, hashes[i])))
            keys[absent++] = keys[i];
    }
    return absent;
}

/* Reports anything but found and not found to the rim, which stops the process. */
static enum kv_err checked(struct ledger *ledger, enum kv_err err, const char *what)
{
    if (err == KV_OK || err == KV_NOT_FOUND)
        return err;
    ledger->world->failed(ledger->world->ctx, err, what);
    return KV_NOT_FOUND;
}

enum kv_err ledger_get_key(struct ledger *ledger, struct kv_slice key, struct kv_row *out, uint64_t *position)
{
    *position = 0;
    struct kv_slice value;
    const struct overlay_row *row = find_unapplied(ledger, OVERLAY_KEYS, key);
    if (row != NULL) {
        *position = row->position;
        if (row->tombstone)
            return KV_NOT_FOUND;
        value = overlay_value(row);
    } else {
        enum kv_err err =
            checked(ledger, ledger->world->get_key(ledger->world->ctx, key, &value), "cannot look up a key");
        if (err != KV_OK)
            return err;
    }
    return checked(ledger, row_decode_key(value, out), "cannot read a key's row");
}

static struct ledger_memo *memo_of(const struct ledger *ledger, const struct kv_hash *hash)
{
    uint32_t bits;
    memcpy(&bits, hash->bytes, sizeof bits);
    return &ledger->memos[bits & (LEDGER_MEMOS - 1)];
}

/* Without its bytes, which are not the ledger's. */
static void set_memo(struct ledger *ledger, const struct kv_hash *hash, enum kv_err err, const struct kv_object *object,
                     uint64_t position)
{
    struct ledger_memo *memo = memo_of(ledger, hash);
    *memo = (struct ledger_memo){.hash = *hash, .valid = true, .err = err, .position = position};
    if (err == KV_OK)
        memo->object = *object;
    memo->object.bytes = kv_slice(NULL, 0);
}

enum kv_err ledger_open_object(struct ledger *ledger, const struct kv_hash *hash, struct kv_object *out,
                               uint64_t *position)
{
    *position = 0;
    struct kv_slice value;
    const struct overlay_row *row = find_unapplied(ledger, OVERLAY_OBJECTS, kv_hash_slice(hash));
    if (row != NULL) {
        *position = row->position;
        if (row->tombstone)
            return KV_NOT_FOUND;
        value = overlay_value(row);
    } else {
        enum kv_err err =
            checked(ledger, ledger->world->get_object(ledger->world->ctx, hash, &value), "cannot look up a content");
        if (err != KV_OK)
            return err;
    }
    return checked(ledger, row_decode_object(value, out), "cannot read a content's row");
}

enum kv_err ledger_get_object(struct ledger *ledger, const struct kv_hash *hash, struct kv_object *out,
                              uint64_t *position)
{
    const struct ledger_memo *memo = memo_of(ledger, hash);
    if (!memo->valid || !kv_hash_equal(&memo->hash, hash)) {
        struct kv_object object;
        enum kv_err err = ledger_open_object(ledger, hash, &object, position);
        set_memo(ledger, hash, err, &object, *position);
    }
    *position = memo->position;
    if (memo->err == KV_OK)
        *out = memo->object;
    return memo->err;
}

/* Seeded: clients choose contents, and shall not choose which of them meet in a bucket. */
static unsigned bucket_hash(const struct kv_hash *hash)
{
    return (unsigned)overlay_hash(kv_hash_slice(hash));
}

static struct pending *find_pending(const struct ledger *ledger, const struct kv_hash *hash)
{
    struct pending *pending = NULL;
    HASH_FIND_BYHASHVALUE(hh, ledger->pending, hash, sizeof *hash, bucket_hash(hash), pending);
    return pending;
}

uint64_t ledger_refs(const struct ledger *ledger, const struct kv_hash *hash, uint64_t settled_refs)
{
    const struct pending *pending = find_pending(ledger, hash);
    return pending == NULL ? settled_refs : settled_refs + pending->adds - pending->drops;
}

uint64_t ledger_refs_unpromised(const struct ledger *ledger, const struct kv_hash *hash, uint64_t settled_refs)
{
    const struct pending *pending = find_pending(ledger, hash);
    kv_assert(pending == NULL || settled_refs >= pending->drops);
    return pending == NULL ? settled_refs : settled_refs - pending->drops;
}

enum kv_err ledger_get_bytes(struct ledger *ledger, const struct kv_object *object, uint64_t offset, uint64_t bytes,
                             struct kv_buf *out)
{
    kv_assert(object->object_id != 0);
    if (bytes == 0)
        return KV_OK;
    const struct overlay_row *row = NULL;
    uint8_t space[8];
    if (object->stored_bytes <= KV_INLINE_BYTES_MAX)
        row = find_unapplied(ledger, OVERLAY_BLOBS, row_encode_id(object->object_id, space));
    if (row == NULL)
        return ledger->world->get_blob(ledger->world->ctx, object->object_id, offset, bytes, out);
    kv_assert(!row->tombstone && offset <= overlay_value(row).bytes && bytes <= overlay_value(row).bytes - offset);
    kv_buf_append(out, kv_slice(overlay_value(row).data + offset, (size_t)bytes));
    return KV_OK;
}

/* ---- folding -------------------------------------------------------------------------------------------------- */

static void add_pending(struct ledger *ledger, const struct kv_hash *hash, uint64_t adds, uint64_t drops)
{
    struct pending *pending = find_pending(ledger, hash);
    if (pending == NULL) {
        pending = kv_alloc_zero(1, sizeof *pending);
        pending->hash = *hash;
        HASH_ADD_BYHASHVALUE(hh, ledger->pending, hash, sizeof pending->hash, bucket_hash(hash), pending);
    }
    pending->adds += adds;
    pending->drops += drops;
}

/* Whether votes to add to it are open still. */
static bool settle_pending(struct ledger *ledger, const struct kv_hash *hash, uint64_t adds, uint64_t drops)
{
    struct pending *pending = find_pending(ledger, hash);
    kv_assert(pending != NULL && pending->adds >= adds && pending->drops >= drops);
    pending->adds -= adds;
    pending->drops -= drops;
    bool awaited = pending->adds > 0;
    if (!awaited && pending->drops == 0) {
        HASH_DEL(ledger->pending, pending);
        free(pending);
    }
    return awaited;
}

static void put_object(struct ledger *ledger, const struct kv_hash *hash, const struct kv_object *object,
                       uint64_t position)
{
    uint8_t space[ROW_OBJECT_BYTES_MAX];
    overlay_put(ledger->active, OVERLAY_OBJECTS, kv_hash_slice(hash), row_encode_object(object, space), position);
    set_memo(ledger, hash, KV_OK, object, position);
}

/* As put_object, for a content that is here: the bytes of a small one move along with its row. */
static void put_again(struct ledger *ledger, const struct kv_hash *hash, struct kv_object *object, uint64_t position)
{
    struct kv_object here;
    uint64_t row_position;
    if (object->object_id == 0) {
        enum kv_err err = ledger_open_object(ledger, hash, &here, &row_position);
        kv_assert(err == KV_OK);
        object->bytes = here.bytes;
    }
    put_object(ledger, hash, object, position);
}

/* Bytes that never left this generation vanish without a trace; staged ones have rows in LMDB already, which the applier learns
 * from the tombstone of their id. The rest it finds through the object row that it deletes, or in it. */
static void delete_object(struct ledger *ledger, const struct kv_hash *hash, const struct kv_object *object,
                          uint64_t position)
{
    uint8_t space[8];
    struct kv_slice id = row_encode_id(object->object_id, space);
    overlay_tombstone(ledger->active, OVERLAY_OBJECTS, kv_hash_slice(hash), position);
    set_memo(ledger, hash, KV_NOT_FOUND, NULL, position);
    if (object->stored_bytes > KV_INLINE_BYTES_MAX) {
        overlay_tombstone(ledger->active, OVERLAY_BLOBS, id, position);
        ledger->dead_bytes += object->stored_bytes;
    } else if (object->object_id != 0) {
        overlay_forget(ledger->active, OVERLAY_BLOBS, id);
    }
}

static void bear_object(struct ledger *ledger, const struct kv_op *add, uint64_t position)
{
    struct kv_object object = {
        .size = add->size,
        .stored_bytes = add->stored_bytes,
        .codec = add->codec,
        .object_id = add->object_id,
    };
    uint8_t space[8];
    kv_assert(add->object_id != 0); /* a reference to what is not here is refused before it is journaled */
    if (object.object_id >= ledger->object_id_next)
        ledger->object_id_next = object.object_id + 1;
    if (add->has_bytes && add->bytes.bytes <= ROW_CONTENT_BYTES_MAX) {
        object.object_id = 0;
        object.bytes = add->bytes;
    } else if (add->has_bytes) {
        overlay_put(ledger->active, OVERLAY_BLOBS, row_encode_id(object.object_id, space), add->bytes, position);
    }
    put_object(ledger, &add->hash, &object, position);
}

/* What the open vote on this key will change the number of keys by. */
static int64_t key_change(const struct kv_op *op)
{
    if (op->kind == KV_OP_SET)
        return op->expect_txn == 0;
    return op->kind == KV_OP_CLEAR && op->expect_txn != 0 ? -1 : 0;
}

void ledger_prepare(struct ledger *ledger, const struct kv_ops *ops, uint64_t position, struct kv_buf *existed)
{
    for (const struct kv_op *op = ops->at; op < ops->at + ops->count; op++) {
        ledger->keys_pending += key_change(op);
        if (op->kind == KV_OP_DROP)
            add_pending(ledger, &op->hash, 0, op->count);
        if (op->kind != KV_OP_ADD)
            continue;
        struct kv_object object;
        uint64_t row_position;
        uint8_t here = ledger_get_object(ledger, &op->hash, &object, &row_position) == KV_OK;
        kv_buf_append(existed, kv_slice(&here, 1));
        if (!here)
            bear_object(ledger, op, position);
        add_pending(ledger, &op->hash, op->count, 0);
    }
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Moves the reference count by `add` - `drop` and deletes what nothing refers to and no vote is about to (`awaited`). */
static void change_refs(struct ledger *ledger, const struct kv_hash *hash, bool awaited, uint64_t add, uint64_t drop,
                        uint64_t position)
{
    struct kv_object object;
    uint64_t row_position;
    enum kv_err err = ledger_get_object(ledger, hash, &object, &row_position);
    kv_assert(err == KV_OK && object.refs + add >= drop);
    if (add == drop && object.refs > 0)
        return;
    bool was_counted = object.refs > 0;
    object.refs = object.refs + add - drop;
    bool counted = object.refs > 0;
    if (counted && !was_counted) {
        ledger->objects++;
        ledger->stored_bytes += object.stored_bytes;
    } else if (!counted && was_counted) {
        ledger->objects--;
        ledger->stored_bytes -= object.stored_bytes;
    }
    if (counted || awaited)
        put_again(ledger, hash, &object, later(position, row_position));
    else
        delete_object(ledger, hash, &object, later(position, row_position));
}

static void commit_key(struct ledger *ledger, uint64_t txn_id, const struct kv_op *op, uint64_t position)
{
    uint8_t space[ROW_KEY_BYTES_MAX];
    if (op->kind == KV_OP_SET) {
        struct kv_row row = op->row;
        row.txn_id = txn_id;
        overlay_put(ledger->active, OVERLAY_KEYS, op->key, row_encode_key(&row, space), position);
    } else if (op->kind == KV_OP_CLEAR && op->expect_txn != 0) {
        overlay_tombstone(ledger->active, OVERLAY_KEYS, op->key, position);
    }
    ledger->keys = (uint64_t)((int64_t)ledger->keys + key_change(op));
}

void ledger_commit(struct ledger *ledger, uint64_t txn_id, const struct kv_ops *ops, uint64_t position)
{
    for (const struct kv_op *op = ops->at; op < ops->at + ops->count; op++) {
        ledger->keys_pending -= key_change(op);
        if (op->kind == KV_OP_ADD) {
            bool awaited = settle_pending(ledger, &op->hash, op->count, 0);
            change_refs(ledger, &op->hash, awaited, op->count, 0, position);
        } else if (op->kind == KV_OP_DROP) {
            bool awaited = settle_pending(ledger, &op->hash, 0, op->count);
            change_refs(ledger, &op->hash, awaited, 0, op->count, position);
        } else {
            commit_key(ledger, txn_id, op, position);
        }
    }
}

void ledger_abort(struct ledger *ledger, const struct kv_ops *ops, uint64_t position)
{
    for (const struct kv_op *op = ops->at; op < ops->at + ops->count; op++) {
        ledger->keys_pending -= key_change(op);
        if (op->kind == KV_OP_DROP)
            settle_pending(ledger, &op->hash, 0, op->count);
        if (op->kind != KV_OP_ADD)
            continue;
        bool awaited = settle_pending(ledger, &op->hash, op->count, 0);
        change_refs(ledger, &op->hash, awaited, 0, 0, position);
    }
}

void ledger_restore_votes(struct ledger *ledger, const struct kv_ops *ops)
{
    for (const struct kv_op *op = ops->at; op < ops->at + ops->count; op++) {
        ledger->keys_pending += key_change(op);
        if (op->kind == KV_OP_ADD)
            add_pending(ledger, &op->hash, op->count, 0);
        else if (op->kind == KV_OP_DROP)
            add_pending(ledger, &op->hash, 0, op->count);
    }
}
