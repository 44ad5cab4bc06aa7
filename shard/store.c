/* shard/store.c -- the environment: opening, the loop's snapshot, usage.
 * Does:     opens the environment, checks whose files they are, opens it anew when LMDB has taken memory that it would not give back.
 * Owns:     the environment and the loop's read transaction.
 * Promises: one environment per process. With store_txn.c the only file that calls LMDB.
 * Fails:    as store_txn.c; a place in `why` says what was done.
 * Tests:    unit/shard/test_store.c. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kv/log.h"
#include "store_lmdb.h"
#include "store_meta.h"
#include "store_redo.h"

#define STORE_READERS_MAX 64u
#define STORE_FILE_MODE 0600
#define FREE_LIST_TABLE 0u /* LMDB's FREE_DBI: mdb_stat -f asks the same way */

static const char *const table_names[STORE_TABLES] = {"keys", "tails", "objects", "blobs", "sweep", "staged", "meta"};

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

static enum kv_err open_env(const char *path, uint64_t map_bytes, bool read_only, struct store_env *env)
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
        err = store_err(mdb_env_open(
            env->env, path, MDB_NOTLS | MDB_NORDAHEAD | (read_only ? MDB_RDONLY | MDB_NOLOCK : 0), STORE_FILE_MODE));
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

static enum kv_err open_tables(struct store_env *env, bool create, struct store_txn *txn)
{
    int number = MDB_SUCCESS;
    for (size_t table = 0; table < STORE_TABLES && number == MDB_SUCCESS; table++)
        number = mdb_dbi_open(txn->txn, table_names[table], create ? MDB_CREATE : 0, &env->tables[table]);
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

/* Everything in one transaction, so that files that are not ours stay as they are. */
static enum kv_err claim(struct store *store, char *why, size_t why_bytes)
{
    struct store_env *env = store->env;
    struct store_txn *txn = NULL;
    bool empty = false;
    uint64_t half = 0;
    enum kv_err err = txn_begin(env, !store->read_only, &txn);
    if (err == KV_OK)
        err = check_foreign(env, txn, &empty);
    if (err == KV_INVALID)
        snprintf(why, why_bytes, "data.mdb was made by another program: it has no table \"meta\"");
    if (err == KV_OK && empty && store->read_only) {
        snprintf(why, why_bytes, "data.mdb is empty: no shard has begun with it");
        err = KV_INVALID;
    }
    if (err == KV_OK)
        err = explain(open_tables(env, !store->read_only, txn), "its tables cannot be opened", why, why_bytes);
    if (err == KV_OK && empty)
        err = store_meta_create(txn, &store->identity);
    else if (err == KV_OK)
        err = store_meta_check(txn, &store->identity, why, why_bytes);
    if (err == KV_OK)
        err = store_meta_half(txn, &half);
    if (err == KV_OK && half == 0 && !store->read_only)
        redo_remove(store->path); /* of a process that ended before its first piece, or behind the last */
    if (txn)
        err = txn_end(&txn, err);
    if (err == KV_OK && empty)
        err = flush_directory(store->path);
    if (err != KV_OK && err != KV_INVALID && why[0] == '\0')
        explain(err, "cannot be prepared", why, why_bytes);
    return err;
}

/* Any committed row is a place within the map. */
static struct residency find_map(struct store_txn *reader)
{
    struct kv_slice key, value;
    enum kv_err err = txn_seek(reader, STORE_META, kv_slice(NULL, 0), &key, &value);
    return err == KV_OK ? residency_find(value.data) : (struct residency){.begin = NULL};
}

static enum kv_err open_all(struct store *store, char *why, size_t why_bytes)
{
    store->env = kv_alloc_zero(1, sizeof *store->env);
    enum kv_err err = explain(open_env(store->path, store->map_bytes, store->read_only, store->env), "cannot be opened",
                              why, why_bytes);
    if (err == KV_OK)
        err = claim(store, why, why_bytes);
    if (err == KV_OK)
        err = explain(txn_begin(store->env, false, &store->reader), "cannot be read", why, why_bytes);
    if (err != KV_OK)
        return err;
    store->env->map = find_map(store->reader);
    mdb_txn_reset(store->reader->txn);
    return KV_OK;
}

static void close_all(struct store *store)
{
    txn_abort(&store->reader);
    if (store->env->env)
        mdb_env_close(store->env->env);
    free(store->env);
    store->env = NULL;
}

enum kv_err store_open(const char *path, uint64_t map_bytes, bool read_only, const struct store_identity *identity,
                       char *why, size_t why_bytes, struct store **out)
{
    struct store *store = kv_alloc_zero(1, sizeof *store);
    why[0] = '\0';
    store->map_bytes = map_bytes;
    store_bound(store, UINT64_MAX);
    store->writeback = writeback_new(NULL);
    store->read_only = read_only;
    store->identity = *identity;
    snprintf(store->path, sizeof store->path, "%s", path);
    snprintf(store->store_id, sizeof store->store_id, "%s", identity->store_id);
    store->identity.store_id = store->store_id;
    enum kv_err err = open_all(store, why, why_bytes);
    if (err == KV_OK)
        *out = store;
    else
        store_close(&store);
    return err;
}

void store_bound(struct store *store, uint64_t bytes_max)
{
    uint64_t pages = bytes_max / LMDB_PAGE_BYTES;
    store->whole_pages_max = pages < STORE_WHOLE_PAGES_MAX ? pages : STORE_WHOLE_PAGES_MAX;
    store->piece_rows_max = store->whole_pages_max / (STORE_WHOLE_PAGES_MAX / STORE_PIECE_ROWS_MAX) + 1;
}

enum kv_err store_renew(struct store *store, char *why, size_t why_bytes)
{
    kv_assert(!store->reading);
    why[0] = '\0';
    close_all(store);
    return open_all(store, why, why_bytes);
}

void store_close(struct store **store)
{
    if (!*store)
        return;
    close_all(*store);
    store_filter_clear(&(*store)->filter);
    writeback_free(&(*store)->writeback);
    free(*store);
    *store = NULL;
}

/* ---- the loop's snapshot ----------------------------------------------------------------------------------------- */

enum kv_err store_read_begin(struct store *store)
{
    kv_assert(!store->reading);
    store_filter_take(&store->filter);
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

/* LMDB's record of a table, part of its file format (struct MDB_db). */
struct table_record {
    uint32_t unused;
    uint16_t flags;
    uint16_t depth;
    uint64_t branch_pages, leaf_pages, overflow_pages;
    uint64_t entries;
    uint64_t root;
};

enum kv_err txn_tree(struct store_txn *txn, enum store_table table, struct touch_tree *out, uint64_t *pages)
{
    const struct store_env *env = txn->env;
    MDB_val name = {strlen(table_names[table]), (void *)(uintptr_t)table_names[table]}, value;
    MDB_envinfo info;
    struct table_record record;
    enum kv_err err = store_err(mdb_get(txn->txn, env->root, &name, &value));
    if (err == KV_OK)
        err = store_err(mdb_env_info(env->env, &info));
    if (err == KV_OK && (value.mv_size != sizeof record || env->map.begin == NULL || env->map.bytes < info.me_mapsize))
        err = KV_NOT_FOUND;
    if (err != KV_OK)
        return err;
    memcpy(&record, value.mv_data, sizeof record);
    *out = (struct touch_tree){env->map.begin, info.me_last_pgno + 1, record.root, record.depth};
    *pages = record.branch_pages + record.leaf_pages;
    return KV_OK;
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
    usage.absent_by_filter = store->filter.denied;
    usage.absent_by_lmdb = atomic_load_explicit(&store->filter.absent, memory_order_relaxed);
    usage.map_bytes = info.me_mapsize;
    usage.used_bytes = pages * stat.ms_psize;
    usage.readers_oldest = oldest < info.me_last_txnid ? info.me_last_txnid - oldest : 0;
    *out = usage;
    return KV_OK;
}
