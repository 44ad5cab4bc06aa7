/* shard/store_lmdb.h -- LMDB's handles, for the two files that call it: store_txn.c and store.c. Nobody else includes this or lmdb.h. */
#ifndef KV_SHARD_STORE_LMDB_H
#define KV_SHARD_STORE_LMDB_H

#include <lmdb.h>

#include "store_internal.h"

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

/* Logs what has no name of ours, since LMDB's own words end here. */
enum kv_err store_err(int number);
enum kv_err txn_begin(struct store_env *env, bool writes, struct store_txn **out);

#endif
