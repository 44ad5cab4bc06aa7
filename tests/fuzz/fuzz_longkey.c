/* Walks over damaged tables of long keys. Input: the key to begin with, then rows: table, key, value. Nothing is read beyond a row,
 * nothing loops, no key is longer than a key. */
#include "fuzz.h"

#include "longkey.h"
#include "store_internal.h"

enum { ROWS_MAX = 64, STEPS_MAX = 1000 };

struct fuzz_row {
    struct kv_slice key, value;
};

static struct fuzz_table {
    struct fuzz_row rows[ROWS_MAX];
    size_t count, at;
} tables[2];

static size_t find(const struct fuzz_table *table, struct kv_slice key)
{
    size_t at = 0;
    while (at < table->count && kv_slice_compare(table->rows[at].key, key) < 0)
        at++;
    return at;
}

static void add(struct fuzz_table *table, struct fuzz_row row)
{
    size_t at = find(table, row.key);
    if (table->count == ROWS_MAX || row.key.bytes == 0 || row.key.bytes > 511 ||
        (at < table->count && kv_slice_equal(table->rows[at].key, row.key)))
        return;
    memmove(&table->rows[at + 1], &table->rows[at], (table->count++ - at) * sizeof(row));
    table->rows[at] = row;
}

static enum kv_err give(const struct fuzz_table *table, struct kv_slice *key, struct kv_slice *value)
{
    if (table->at >= table->count)
        return KV_NOT_FOUND;
    *key = table->rows[table->at].key;
    *value = table->rows[table->at].value;
    return KV_OK;
}

/* The rim around LMDB: linked before the library, whose store.o is then never pulled in. */
enum kv_err txn_get(struct store_txn *txn, enum store_table table, struct kv_slice key, struct kv_slice *value)
{
    struct fuzz_table *rows = &tables[table];
    size_t at = find(rows, key);
    (void)txn;
    if (at == rows->count || !kv_slice_equal(rows->rows[at].key, key))
        return KV_NOT_FOUND;
    *value = rows->rows[at].value;
    return KV_OK;
}

enum kv_err txn_seek(struct store_txn *txn, enum store_table table, struct kv_slice from, struct kv_slice *key,
                     struct kv_slice *value)
{
    (void)txn;
    tables[table].at = find(&tables[table], from);
    return give(&tables[table], key, value);
}

enum kv_err txn_next(struct store_txn *txn, enum store_table table, struct kv_slice *key, struct kv_slice *value)
{
    (void)txn;
    tables[table].at++;
    return give(&tables[table], key, value);
}

enum kv_err txn_put(struct store_txn *txn, enum store_table table, struct kv_slice key, struct kv_slice value)
{
    (void)txn, (void)table, (void)key, (void)value;
    return KV_IO;
}

enum kv_err txn_delete(struct store_txn *txn, enum store_table table, struct kv_slice key)
{
    (void)txn, (void)table, (void)key;
    return KV_IO;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct longkey_walk walk;
    struct kv_slice input = kv_slice(data, bytes), from = fuzz_part(&input, 2), row;
    memset(tables, 0, sizeof(tables));
    while (input.bytes > 0) {
        struct fuzz_table *table = &tables[fuzz_number(&input, 1) % 2];
        struct kv_slice key = fuzz_part(&input, 2);
        add(table, (struct fuzz_row){key, fuzz_part(&input, 1)});
    }
    if (from.bytes > 0 && from.bytes <= KV_KEY_BYTES_MAX)
        longkey_get(NULL, from, &row);
    enum kv_err err = longkey_seek(NULL, &walk, from, &row);
    for (unsigned step = 0; step < STEPS_MAX && err == KV_OK; step++) {
        FUZZ_CHECK(walk.key_bytes >= 1 && walk.key_bytes <= KV_KEY_BYTES_MAX);
        err = longkey_next(NULL, &walk, &row);
    }
    FUZZ_CHECK(err == KV_OK || err == KV_NOT_FOUND || err == KV_CORRUPT || err == KV_INVALID);
    return 0;
}
