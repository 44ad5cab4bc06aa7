/* shard/store.c -- the rim around LMDB: environment, transactions, tables. The only file that includes lmdb.h.
 * Does:     opens the environment, checks whose files they are, maps LMDB's errors to ours, gives store_*.c the few
 *           primitives of store_internal.h.
 * Owns:     the environment, the loop's read transaction (renewed, never reopened) and its cursors.
 * Promises: one environment per process; cursors of a write transaction are closed before it ends.
 * Fails:    MAP_FULL, ENOSPC, EDQUOT: KV_NO_SPACE. CORRUPTED, PAGE_NOTFOUND, INVALID: KV_CORRUPT. Anything else: KV_IO. The last
 *           two are logged here, since LMDB's own words end here.
 * Tests:    unit/shard/test_store.c. */
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "kv/log.h"
#include "store_internal.h"
#include "store_meta.h"

#define STORE_READERS_MAX 64u
#define STORE_FILE_MODE 0600
#define SHORT_WRITE_BYTES_MAX                                                                                          \
    (1u << 20)             /* free on the disk, and yet a write can end short: LMDB's are of 256 KiB at most */
#define FREE_LIST_TABLE 0u /* LMDB's FREE_DBI: mdb_stat -f asks the same way */

static const char *const table_names[STORE_TABLES] = {"keys", "tails", "objects", "blobs", "sweep", "staged", "meta"};

struct store_env {
    MDB_env *env;
    MDB_dbi root; /* LMDB's own table of tables */
    MDB_dbi tables[STORE_TABLES];
    struct residency map;
};

struct store_txn {
    MDB_txn *txn;
    const struct store_env *env;
    bool writes;
    bool renewed[STORE_TABLES]; /* read transaction: cursors that belong to its present snapshot */
    MDB_cursor *cursors[STORE_TABLES];
};

static enum kv_err store_err(int number)
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

static enum kv_err begin(struct store_env *env, bool writes, struct store_txn **out)
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
    return begin(env, true, out);
}

static void close_cursors(struct store_txn *txn)
{
    for (size_t table = 0; table < STORE_TABLES; table++)
        if (txn->cursors[table])
            mdb_cursor_close(txn->cursors[table]);
}

/* LMDB 0.9 reports a short write, which is how a disk fills up in the middle of one, as EIO (mdb_page_flush). */
static bool disk_is_nearly_full(const struct store_env *env)
{
    struct statvfs disk;
    int fd;
    if (mdb_env_get_fd(env->env, &fd) != MDB_SUCCESS || fstatvfs(fd, &disk) != 0)
        return false;
    return (uint64_t)disk.f_bavail * disk.f_frsize < SHORT_WRITE_BYTES_MAX;
}

enum kv_err txn_commit(struct store_txn **txn)
{
    close_cursors(*txn);
    int number = mdb_txn_commit((*txn)->txn);
    if (number == EIO && disk_is_nearly_full((*txn)->env))
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

void txn_leave(struct store_txn *txn, const void *data, size_t bytes)
{
    residency_leave(&txn->env->map, data, bytes);
}

void store_trim(struct store *store, uint64_t bytes_max)
{
    residency_trim(&store->env->map, bytes_max);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static enum kv_err explain(enum kv_err err, const char *what, char *why, size_t why_bytes)
{
    if (err != KV_OK)
        snprintf(why, why_bytes, "data.mdb: %s: %s", what, kv_err_text(err));
    return err;
}

static enum kv_err open_env(const char *path, uint64_t map_bytes, struct store_env *env)
{
    int dead = 0;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    enum kv_err err = store_err(mdb_env_create(&env->env));
    if (err == KV_OK)
        err = store_err(mdb_env_set_mapsize(env->env, (map_bytes + page - 1) / page * page));
    if (err == KV_OK)
        err = store_err(mdb_env_set_maxdbs(env->env, STORE_TABLES));
    if (err == KV_OK)
        err = store_err(mdb_env_set_maxreaders(env->env, STORE_READERS_MAX));
    if (err == KV_OK)
        err = store_err(mdb_env_open(env->env, path, MDB_NOTLS | MDB_NORDAHEAD, STORE_FILE_MODE));
    if (err == KV_OK)
        err = store_err(mdb_reader_check(env->env, &dead)); /* slots of processes that were killed */
    return err;
}

/* An LMDB file that holds something, but not our meta table, is not ours to write to. */
static enum kv_err check_foreign(struct store_env *env, struct store_txn *txn, bool *empty)
{
    MDB_dbi meta;
    MDB_stat stat;
    int number = mdb_dbi_open(txn->txn, NULL, 0, &env->root);
    if (number == MDB_SUCCESS)
        number = mdb_stat(txn->txn, env->root, &stat);
    if (number != MDB_SUCCESS)
        return store_err(number);
    *empty = stat.ms_entries == 0;
    number = *empty ? MDB_SUCCESS : mdb_dbi_open(txn->txn, table_names[STORE_META], 0, &meta);
    return number == MDB_NOTFOUND || number == MDB_INCOMPATIBLE ? KV_INVALID : store_err(number);
}

static enum kv_err open_tables(struct store_env *env, struct store_txn *txn)
{
    int number = MDB_SUCCESS;
    for (size_t table = 0; table < STORE_TABLES && number == MDB_SUCCESS; table++)
        number = mdb_dbi_open(txn->txn, table_names[table], MDB_CREATE, &env->tables[table]);
    return store_err(number);
}

/* LMDB flushes its file, but not the directory that names it. */
static enum kv_err flush_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum kv_err err = fd >= 0 && fsync(fd) == 0 ? KV_OK : KV_IO;
    if (fd >= 0)
        close(fd);
    return err;
}

/* Everything in one write transaction, so that files that are not ours stay as they are. */
static enum kv_err claim(const char *path, struct store_env *env, const struct store_identity *identity, char *why,
                         size_t why_bytes)
{
    struct store_txn *txn = NULL;
    bool empty = false;
    enum kv_err err = begin(env, true, &txn);
    if (err == KV_OK)
        err = check_foreign(env, txn, &empty);
    if (err == KV_INVALID)
        snprintf(why, why_bytes, "data.mdb was made by another program: it has no table \"meta\"");
    if (err == KV_OK)
        err = explain(open_tables(env, txn), "its tables cannot be opened", why, why_bytes);
    if (err == KV_OK)
        err = empty ? store_meta_create(txn, identity) : store_meta_check(txn, identity, why, why_bytes);
    if (txn)
        err = txn_end(&txn, err);
    if (err == KV_OK && empty)
        err = flush_directory(path);
    if (err != KV_OK && err != KV_INVALID && why[0] == '\0')
        explain(err, "cannot be prepared", why, why_bytes);
    return err;
}

/* Any committed row is a place within the map. */
static struct residency find_map(struct store_txn *reader)
{
    struct kv_slice key, value;
    enum kv_err err = txn_seek(reader, STORE_META, kv_slice(NULL, 0), &key, &value);
    return err == KV_OK ? residency_find(value.data) : (struct residency){NULL, 0};
}

enum kv_err store_open(const char *path, uint64_t map_bytes, const struct store_identity *identity, char *why,
                       size_t why_bytes, struct store **out)
{
    struct store *store = kv_alloc_zero(1, sizeof *store);
    store->env = kv_alloc_zero(1, sizeof *store->env);
    why[0] = '\0';
    enum kv_err err = explain(open_env(path, map_bytes, store->env), "cannot be opened", why, why_bytes);
    if (err == KV_OK)
        err = claim(path, store->env, identity, why, why_bytes);
    if (err == KV_OK)
        err = explain(begin(store->env, false, &store->reader), "cannot be read", why, why_bytes);
    if (err == KV_OK) {
        store->env->map = find_map(store->reader);
        mdb_txn_reset(store->reader->txn);
        *out = store;
    } else {
        store_close(&store);
    }
    return err;
}

void store_close(struct store **store)
{
    if (!*store)
        return;
    txn_abort(&(*store)->reader);
    if ((*store)->env->env)
        mdb_env_close((*store)->env->env);
    free((*store)->env);
    free(*store);
    *store = NULL;
}

/* ---- the loop's snapshot ----------------------------------------------------------------------------------------- */

enum kv_err store_read_begin(struct store *store)
{
    kv_assert(!store->reading);
    enum kv_err err = store_err(mdb_txn_renew(store->reader->txn));
    if (err != KV_OK)
        return err;
    memset(store->reader->renewed, 0, sizeof store->reader->renewed);
    store->walk.valid = false;
    store->reading = true;
    return KV_OK;
}

void store_read_end(struct store *store)
{
    kv_assert(store->reading);
    mdb_txn_reset(store->reader->txn);
    store->reading = false;
}

/* ---- usage ------------------------------------------------------------------------------------------------------- */

/* One line of mdb_reader_list: "pid thread txnid", the last "-" when the slot is idle. */
static int on_reader(const char *line, void *ctx)
{
    uint64_t *oldest = ctx;
    unsigned long long txnid;
    if (sscanf(line, "%*s %*s %llu", &txnid) == 1 && txnid < *oldest)
        *oldest = txnid;
    return 0;
}

/* What the tables take, LMDB's own two included: all other pages of the file are free. */
static enum kv_err count_pages(struct store_txn *txn, uint64_t *pages)
{
    uint64_t sum = 2; /* meta pages */
    int number = MDB_SUCCESS;
    for (size_t at = 0; at < STORE_TABLES + 2 && number == MDB_SUCCESS; at++) {
        MDB_stat stat;
        MDB_dbi table = at < STORE_TABLES    ? txn->env->tables[at]
                        : at == STORE_TABLES ? txn->env->root
                                             : FREE_LIST_TABLE;
        number = mdb_stat(txn->txn, table, &stat);
        if (number == MDB_SUCCESS)
            sum += stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
    }
    if (number == MDB_SUCCESS)
        *pages = sum;
    return store_err(number);
}

enum kv_err store_usage(struct store *store, struct store_usage *out)
{
    kv_assert(store->reading);
    MDB_envinfo info;
    MDB_stat stat;
    struct store_usage usage = {0};
    uint64_t pages = 0, oldest = UINT64_MAX;
    enum kv_err err = store_err(mdb_env_info(store->env->env, &info));
    if (err == KV_OK)
        err = store_err(mdb_env_stat(store->env->env, &stat));
    if (err == KV_OK)
        err = count_pages(store->reader, &pages);
    if (err == KV_OK)
        err = txn_count(store->reader, STORE_SWEEP, &usage.sweep_objects);
    if (err != KV_OK)
        return err;
    mdb_reader_list(store->env->env, on_reader, &oldest);
    usage.map_bytes = info.me_mapsize;
    usage.used_bytes = pages * stat.ms_psize;
    usage.readers_oldest = oldest < info.me_last_txnid ? info.me_last_txnid - oldest : 0;
    *out = usage;
    return KV_OK;
}
