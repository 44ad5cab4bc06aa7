/* shard/store_meta.c -- see store_meta.h. */
#include "store_meta.h"

#include <inttypes.h>
#include <stdio.h>

#include "bytes.h"
#include "kv/log.h"

#define IDENTITY_BYTES (3 * 8 + KV_STORE_ID_BYTES)
#define META_NUMBERS 6u

static void put_numbers(uint8_t *at, const uint64_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        at = bytes_put_u64(at, numbers[i]);
}

static void take_numbers(const uint8_t *at, uint64_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        numbers[i] = bytes_get_u64(at + i * sizeof *numbers);
}

enum kv_err store_meta_create(struct store_txn *txn, const struct store_identity *identity)
{
    uint8_t space[IDENTITY_BYTES];
    uint64_t numbers[3] = {STORE_FORMAT_VERSION, identity->shard_index, identity->shard_count};
    kv_assert(strlen(identity->store_id) == KV_STORE_ID_BYTES);
    put_numbers(space, numbers, 3);
    memcpy(space + 24, identity->store_id, KV_STORE_ID_BYTES);
    enum kv_err err = txn_put(txn, STORE_META, kv_slice_text("identity"), kv_slice(space, sizeof space));
    return err == KV_OK ? store_meta_put(txn, &(struct store_meta){.object_id_next = 1}, 1) : err;
}

static enum kv_err refuse(char *why, size_t why_bytes, const char *what, uint64_t found, uint64_t wanted)
{
    snprintf(why, why_bytes, "the files were made %s %" PRIu64 ", not %" PRIu64, what, found, wanted);
    return KV_INVALID;
}

enum kv_err store_meta_check(struct store_txn *txn, const struct store_identity *identity, char *why, size_t why_bytes)
{
    struct kv_slice value;
    uint64_t numbers[3];
    enum kv_err err = txn_get(txn, STORE_META, kv_slice_text("identity"), &value);
    if (err == KV_NOT_FOUND || (err == KV_OK && value.bytes != IDENTITY_BYTES)) {
        snprintf(why, why_bytes, "data.mdb does not say whose it is: its row \"identity\" is missing or damaged");
        return KV_CORRUPT;
    }
    if (err != KV_OK)
        return err;
    take_numbers(value.data, numbers, 3);
    if (numbers[0] < STORE_FORMAT_VERSION_MIN || numbers[0] > STORE_FORMAT_VERSION_HALF)
        return refuse(why, why_bytes, "with format version", numbers[0], STORE_FORMAT_VERSION);
    if (numbers[2] != identity->shard_count)
        return refuse(why, why_bytes, "with a number of shards of", numbers[2], identity->shard_count);
    if (numbers[1] != identity->shard_index)
        return refuse(why, why_bytes, "by shard", numbers[1], identity->shard_index);
    if (strlen(identity->store_id) == KV_STORE_ID_BYTES &&
        memcmp(value.data + 24, identity->store_id, KV_STORE_ID_BYTES) == 0)
        return KV_OK;
    snprintf(why, why_bytes, "the files belong to the store %.32s, not to %s", (const char *)value.data + 24,
             identity->store_id);
    return KV_INVALID;
}

enum kv_err store_meta_get(struct store_txn *txn, struct store_meta *out, uint64_t *node_id_next)
{
    struct kv_slice value, intents;
    uint64_t numbers[META_NUMBERS];
    enum kv_err err = txn_get(txn, STORE_META, kv_slice_text("meta"), &value);
    if (err == KV_OK && value.bytes != sizeof numbers)
        err = KV_CORRUPT;
    if (err != KV_OK)
        return err == KV_NOT_FOUND ? KV_CORRUPT : err;
    take_numbers(value.data, numbers, META_NUMBERS);
    err = txn_get(txn, STORE_META, kv_slice_text("intents"), &intents);
    if (err != KV_OK)
        return err == KV_NOT_FOUND ? KV_CORRUPT : err;
    *out = (struct store_meta){numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], intents};
    *node_id_next = numbers[5];
    return KV_OK;
}

/* An older build must refuse files with rows that it cannot read, or whose other half it does not know of. */
static enum kv_err set_version(struct store_txn *txn, uint64_t wanted)
{
    struct kv_slice value;
    uint64_t version;
    uint8_t space[IDENTITY_BYTES];
    enum kv_err err = txn_get(txn, STORE_META, kv_slice_text("identity"), &value);
    if (err != KV_OK || value.bytes != IDENTITY_BYTES)
        return KV_CORRUPT;
    take_numbers(value.data, &version, 1);
    if (version == wanted)
        return KV_OK;
    memcpy(space, value.data, sizeof space);
    put_numbers(space, &wanted, 1);
    return txn_put(txn, STORE_META, kv_slice_text("identity"), kv_slice(space, sizeof space));
}

static enum kv_err put_numbers_row(struct store_txn *txn, const struct store_meta *meta, uint64_t node_id_next)
{
    uint8_t space[META_NUMBERS * 8];
    uint64_t numbers[META_NUMBERS] = {meta->position, meta->object_id_next, meta->keys,
                                      meta->objects,  meta->stored_bytes,   node_id_next};
    put_numbers(space, numbers, META_NUMBERS);
    return txn_put(txn, STORE_META, kv_slice_text("meta"), kv_slice(space, sizeof space));
}

enum kv_err store_meta_put(struct store_txn *txn, const struct store_meta *meta, uint64_t node_id_next)
{
    enum kv_err err = set_version(txn, STORE_FORMAT_VERSION);
    if (err == KV_OK)
        err = txn_delete(txn, STORE_META, kv_slice_text("redo"));
    if (err == KV_OK || err == KV_NOT_FOUND)
        err = put_numbers_row(txn, meta, node_id_next);
    return err == KV_OK ? txn_put(txn, STORE_META, kv_slice_text("intents"), meta->intents) : err;
}

/* Node ids are used up with the rows; all else stays what it was before the generation. */
enum kv_err store_meta_put_half(struct store_txn *txn, uint64_t position, uint64_t node_id_next)
{
    uint8_t space[8];
    struct store_meta before;
    uint64_t node_id_before;
    put_numbers(space, &position, 1);
    enum kv_err err = store_meta_get(txn, &before, &node_id_before);
    if (err == KV_OK)
        err = set_version(txn, STORE_FORMAT_VERSION_HALF);
    if (err == KV_OK)
        err = put_numbers_row(txn, &before, node_id_next);
    return err == KV_OK ? txn_put(txn, STORE_META, kv_slice_text("redo"), kv_slice(space, sizeof space)) : err;
}

enum kv_err store_meta_half(struct store_txn *txn, uint64_t *position)
{
    struct kv_slice value;
    enum kv_err err = txn_get(txn, STORE_META, kv_slice_text("redo"), &value);
    if (err == KV_NOT_FOUND) {
        *position = 0;
        return KV_OK;
    }
    if (err != KV_OK || value.bytes != 8)
        return err != KV_OK ? err : KV_CORRUPT;
    take_numbers(value.data, position, 1);
    return *position == 0 ? KV_CORRUPT : KV_OK;
}
