/* shard/store_filter.c -- see store_filter.h. */
#include "store_filter.h"

#include <xxhash.h>

#include "kv/log.h"
#include "store_internal.h"

static const enum store_table tables[STORE_FILTER_TABLES] = {STORE_KEYS, STORE_OBJECTS};

static uint64_t hash_of(enum store_filter_table table, struct kv_slice key)
{
    return XXH3_64bits_withSeed(key.data, key.bytes, table);
}

/* Longer keys are not rows of the table `keys`: their beginnings are. */
static bool is_row(enum store_filter_table table, struct kv_slice key)
{
    return table != STORE_FILTER_KEYS || key.bytes <= LONGKEY_HEAD_BYTES;
}

/* ---- loop -------------------------------------------------------------------------------------------------------- */

void store_filter_take(struct store_filter *filter)
{
    if (atomic_load_explicit(&filter->fresh, memory_order_relaxed) == NULL)
        return;
    filter_free(&filter->taken);
    filter->taken = atomic_exchange_explicit(&filter->fresh, NULL, memory_order_acq_rel);
}

bool store_filter_lacks(struct store_filter *filter, enum store_filter_table table, struct kv_slice key)
{
    bool lacks = filter->taken != NULL && is_row(table, key) && filter_lacks(filter->taken, hash_of(table, key));
    filter->denied += lacks;
    return lacks;
}

/* A filter of millions of rows is as far as the tables: all words are asked for before the first is looked at. */
size_t store_filter_sift(const struct store_filter *filter, enum store_filter_table table, struct kv_slice *keys,
                         size_t count)
{
    size_t left = 0;
    if (filter->taken == NULL)
        return count;
    for (size_t i = 0; i < count; i++)
        filter_fetch(filter->taken, hash_of(table, keys[i]));
    for (size_t i = 0; i < count; i++) {
        if (!is_row(table, keys[i]) || !filter_lacks(filter->taken, hash_of(table, keys[i])))
            keys[left++] = keys[i];
    }
    return left;
}

enum kv_err store_filter_asked(struct store_filter *filter, enum kv_err err)
{
    if (err == KV_NOT_FOUND)
        atomic_fetch_add_explicit(&filter->absent, 1, memory_order_relaxed);
    return err;
}

/* ---- [applier], a generation ------------------------------------------------------------------------------------- */

bool store_filter_is_new(const struct store_filter *filter, enum store_filter_table table, struct kv_slice key)
{
    return filter->newest != NULL && is_row(table, key) && filter_lacks(filter->newest, hash_of(table, key));
}

void store_filter_add(struct store_filter *filter, enum store_filter_table table, struct kv_slice key)
{
    uint64_t hash = hash_of(table, key);
    if (filter->newest != NULL)
        filter_add(filter->newest, hash);
    if (filter->building != NULL)
        filter_add(filter->building, hash);
}

/* ---- [applier], a new filter ------------------------------------------------------------------------------------- */

static bool is_due(const struct store_filter *filter)
{
    if (filter->newest != NULL)
        return filter_is_full(filter->newest);
    return atomic_load_explicit(&filter->absent, memory_order_relaxed) >= STORE_FILTER_ABSENT;
}

static enum kv_err begin(struct store_filter *filter, struct store_txn *txn)
{
    uint64_t sum = 0;
    for (unsigned table = 0; table < STORE_FILTER_TABLES; table++) {
        uint64_t rows;
        enum kv_err err = txn_count(txn, tables[table], &rows);
        if (err != KV_OK)
            return err;
        sum += rows;
    }
    filter->building = filter_new(sum * 2 > STORE_FILTER_ROWS_MIN ? sum * 2 : STORE_FILTER_ROWS_MIN);
    filter->at_table = 0;
    filter->from_bytes = 0;
    return KV_OK;
}

/* From the row on that was read last: rows behind it that have come since are met here, rows before it were added. */
static enum kv_err read_on(struct store_filter *filter, struct store_txn *txn)
{
    enum store_table table = tables[filter->at_table];
    struct kv_slice key, value;
    enum kv_err err = txn_seek(txn, table, kv_slice(filter->from, filter->from_bytes), &key, &value);
    for (size_t rows = 1; err == KV_OK; rows++) {
        filter_add(filter->building, hash_of((enum store_filter_table)filter->at_table, key));
        if (rows >= STORE_FILTER_STEP_ROWS)
            break;
        err = txn_next(txn, table, &key, &value);
    }
    if (err != KV_OK)
        return err;
    kv_assert(key.bytes <= sizeof filter->from);
    memcpy(filter->from, key.data, key.bytes);
    filter->from_bytes = key.bytes;
    return KV_OK;
}

/* One that the loop has not taken was never asked. */
static void publish(struct store_filter *filter)
{
    filter->newest = filter->building;
    filter->building = NULL;
    struct filter *unseen = atomic_exchange_explicit(&filter->fresh, filter->newest, memory_order_acq_rel);
    filter_free(&unseen);
}

enum kv_err store_learn(struct store *store)
{
    struct store_filter *filter = &store->filter;
    struct store_txn *txn = NULL;
    if (filter->building == NULL && !is_due(filter))
        return KV_NOT_FOUND;
    enum kv_err err = txn_begin_read(store->env, &txn);
    if (err == KV_OK && filter->building == NULL)
        err = begin(filter, txn);
    if (err == KV_OK)
        err = read_on(filter, txn);
    txn_abort(&txn);
    if (err != KV_NOT_FOUND)
        return err;
    filter->at_table++;
    filter->from_bytes = 0;
    if (filter->at_table < STORE_FILTER_TABLES)
        return KV_OK;
    publish(filter);
    return KV_NOT_FOUND;
}

void store_filter_clear(struct store_filter *filter)
{
    struct filter *fresh = atomic_load_explicit(&filter->fresh, memory_order_relaxed);
    filter_free(&fresh);
    filter_free(&filter->taken);
    filter_free(&filter->building);
}
