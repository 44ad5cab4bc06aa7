/* shard/store_txn.c -- LMDB's transactions and rows, as store_internal.h names them.
 * Does:     maps LMDB's errors to ours; keeps one cursor per table and transaction.
 * Promises: cursors of a write transaction are closed before it ends; the loop's read transaction is renewed, never reopened.
 * Fails:    MAP_FULL, ENOSPC, EDQUOT: KV_NO_SPACE. CORRUPTED, PAGE_NOTFOUND, INVALID: KV_CORRUPT. Anything else: KV_IO. The last
 *           two are logged here.
 * Tests:    unit/shard/test_store.c. */
#include <errno.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include "kv/log.h"
#include "store_lmdb.h"

/* So much may be free on the disk, and yet a write can end short: LMDB's are of 256 KiB at most. */
#define SHORT_WRITE_BYTES_MAX (1u << 20)

enum kv_err store_err(int number)
{
    switch (number) {
    case MDB_SUCCESS:
        return KV_OK;
    case MDB_NOTFOUND:
        return KV_NOT_FOUND;
    case MDB_MAP_FULL:
    case ENOSPC:
    case EDQUOT:
        return KV_NO_SPACE;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
        kv_error("LMDB: %s", mdb_strerror(number));
        return KV_CORRUPT;
    default:
        kv_error("LMDB: %s", mdb_strerror(number));
        return KV_IO;
    }
}

static MDB_val val(struct kv_slice slice)
{
    return (MDB_val){slice.bytes, (void *)(uintptr_t)slice.data};
}

static struct kv_slice slice(MDB_val bytes)
{
    return kv_slice(bytes.mv_data, bytes.mv_size);
}

/* ---- transactions ------------------------------------------------------------------------------------------------ */

enum kv_err txn_begin(struct store_env *env, bool writes, struct store_txn **out)
{
    struct store_txn *txn = kv_alloc_zero(1, sizeof *txn);
    txn->env = env;
    txn->writes = writes;
    enum kv_err err = store_err(mdb_txn_begin(env->env, NULL, writes ? 0 : MDB_RDONLY, &txn->txn));
    if (err == KV_OK)
        *out = txn;
    else
        free(txn);
    return err;
}

enum kv_err txn_begin_write(struct store_env *env, struct store_txn **out)
{
    return txn_begin(env, true, out);
}

enum kv_err txn_begin_read(struct store_env *env, struct store_txn **out)
{
    return txn_begin(env, false, out);
}

static void close_cursors(struct store_txn *txn)
{
    for (size_t table = 0; table < STORE_TABLES; table++)
        if (txn->cursors[table])
            mdb_cursor_close(txn->cursors[table]);
}

int txn_file(const struct store_txn *txn)
{
    int fd;
    int number = mdb_env_get_fd(txn->env->env, &fd);
    kv_assert(number == MDB_SUCCESS);
    return fd;
}

/* LMDB 0.9 reports a short write, which is how a disk fills up in the middle of one, as EIO (mdb_page_flush). */
static bool disk_is_nearly_full(const struct store_txn *txn)
{
    struct statvfs disk;
    if (fstatvfs(txn_file(txn), &disk) != 0)
        return false;
    return (uint64_t)disk.f_bavail * disk.f_frsize < SHORT_WRITE_BYTES_MAX;
}

enum kv_err txn_commit(struct store_txn **txn)
{
    close_cursors(*txn);
    int number = mdb_txn_commit((*txn)->txn);
    if (number == EIO && disk_is_nearly_full(*txn))
        number = ENOSPC;
    enum kv_err err = store_err(number);
    free(*txn);
    *txn = NULL;
    return err;
}

void txn_abort(struct store_txn **txn)
{
    if (!*txn)
        return;
    close_cursors(*txn);
    mdb_txn_abort((*txn)->txn);
    free(*txn);
    *txn = NULL;
}

enum kv_err txn_end(struct store_txn **txn, enum kv_err err)
{
    if (err == KV_OK)
        return txn_commit(txn);
    txn_abort(txn);
    return err;
}

/* The table's one cursor: opened at its first use, and in the read transaction renewed at its first use after each begin. */
static enum kv_err cursor_of(struct store_txn *txn, enum store_table table, MDB_cursor **out)
{
    MDB_cursor **cursor = &txn->cursors[table];
    int number = MDB_SUCCESS;
    if (!*cursor)
        number = mdb_cursor_open(txn->txn, txn->env->tables[table], cursor);
    else if (!txn->writes && !txn->renewed[table])
        number = mdb_cursor_renew(txn->txn, *cursor);
    txn->renewed[table] = number == MDB_SUCCESS;
    *out = *cursor;
    return store_err(number);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static enum kv_err move(struct store_txn *txn, enum store_table table, MDB_cursor_op op, struct kv_slice *key,
                        struct kv_slice *value)
{
    MDB_cursor *cursor;
    MDB_val k = val(*key), v;
    enum kv_err err = cursor_of(txn, table, &cursor);
    if (err == KV_OK)
        err = store_err(mdb_cursor_get(cursor, &k, &v, op));
    if (err != KV_OK)
        return err;
    *key = slice(k);
    *value = slice(v);
    return KV_OK;
}

/* With sorted writes the cursor is near already, which spares the way down the tree; a reader's cursor stays where it is. */
enum kv_err txn_get(struct store_txn *txn, enum store_table table, struct kv_slice key, struct kv_slice *value)
{
    if (txn->writes)
        return move(txn, table, MDB_SET, &key, value);
    MDB_val k = val(key), v;
    enum kv_err err = store_err(mdb_get(txn->txn, txn->env->tables[table], &k, &v));
    if (err == KV_OK)
        *value = slice(v);
    return err;
}

enum kv_err txn_seek(struct store_txn *txn, enum store_table table, struct kv_slice from, struct kv_slice *key,
                     struct kv_slice *value)
{
    MDB_cursor_op op = from.bytes == 0 ? MDB_FIRST : MDB_SET_RANGE; /* LMDB knows no empty key */
    enum kv_err err = move(txn, table, op, &from, value);
    if (err == KV_OK)
        *key = from;
    return err;
}

enum kv_err txn_next(struct store_txn *txn, enum store_table table, struct kv_slice *key, struct kv_slice *value)
{
    *key = kv_slice(NULL, 0);
    return move(txn, table, MDB_NEXT, key, value);
}

enum kv_err txn_last(struct store_txn *txn, enum store_table table, struct kv_slice *key, struct kv_slice *value)
{
    *key = kv_slice(NULL, 0);
    return move(txn, table, MDB_LAST, key, value);
}

static enum kv_err put(struct store_txn *txn, enum store_table table, struct kv_slice key, struct kv_slice value,
                       unsigned flags)
{
    MDB_cursor *cursor;
    MDB_val k = val(key), v = val(value);
    enum kv_err err = cursor_of(txn, table, &cursor);
    return err == KV_OK ? store_err(mdb_cursor_put(cursor, &k, &v, flags)) : err;
}

enum kv_err txn_put(struct store_txn *txn, enum store_table table, struct kv_slice key, struct kv_slice value)
{
    return put(txn, table, key, value, 0);
}

enum kv_err txn_append(struct store_txn *txn, enum store_table table, struct kv_slice key, struct kv_slice value)
{
    return put(txn, table, key, value, MDB_APPEND);
}

enum kv_err txn_delete(struct store_txn *txn, enum store_table table, struct kv_slice key)
{
    struct kv_slice value;
    enum kv_err err = move(txn, table, MDB_SET, &key, &value);
    return err == KV_OK ? txn_delete_current(txn, table) : err;
}

enum kv_err txn_delete_current(struct store_txn *txn, enum store_table table)
{
    MDB_cursor *cursor;
    enum kv_err err = cursor_of(txn, table, &cursor);
    return err == KV_OK ? store_err(mdb_cursor_del(cursor, 0)) : err;
}

enum kv_err txn_count(struct store_txn *txn, enum store_table table, uint64_t *rows)
{
    MDB_stat stat;
    enum kv_err err = store_err(mdb_stat(txn->txn, txn->env->tables[table], &stat));
    if (err == KV_OK)
        *rows = stat.ms_entries;
    return err;
}

enum kv_err txn_pages(struct store_txn *txn, enum store_table table, uint64_t *pages)
{
    MDB_stat stat;
    enum kv_err err = store_err(mdb_stat(txn->txn, txn->env->tables[table], &stat));
    if (err == KV_OK)
        *pages = stat.ms_branch_pages + stat.ms_leaf_pages;
    return err;
}

void txn_leave(struct store_txn *txn, const void *data, size_t bytes)
{
    residency_leave(&txn->env->map, data, bytes);
}
