/* shard/store_stage.h -- what store_apply.c and store_stage.c do to `staged` and `sweep`, within a write transaction. Nobody else. */
#ifndef KV_SHARD_STORE_STAGE_H
#define KV_SHARD_STORE_STAGE_H

#include "store_internal.h"

/* In `staged` or `sweep`. */
enum kv_err store_put_id(struct store_txn *txn, enum store_table table, uint64_t object_id, uint64_t bytes);
enum kv_err store_delete_id(struct store_txn *txn, enum store_table table, uint64_t object_id);
/* From `staged` to `sweep`. An id that is not in `staged` was adopted, or never written: not ours to sweep. */
enum kv_err store_unstage_id(struct store_txn *txn, uint64_t object_id);

enum kv_err store_ignore_missing(enum kv_err err);
/* As txn_end, for as many pages as a generation has. */
enum kv_err store_end_large(struct store *store, struct store_txn **txn, enum kv_err err);

#endif
