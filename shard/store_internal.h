/* shard/store_internal.h -- tables and transactions as the store's own files see them: the rim around LMDB.
 * Does:     names the tables; get, seek, next, put and delete on them inside a transaction. Implemented in store_txn.c; used by
 *           store_*.c, longkey.c and blobs.c and by nobody outside the store.
 * Promises: values and keys given back are peeks into the map: in a read transaction valid to its end, in a write
 *           transaction until the next change of any table. txn_get leaves the place of txn_seek and txn_next alone in a
 *           read transaction; in a write transaction it moves it.
 * Fails:    KV_NOT_FOUND, KV_NO_SPACE, KV_CORRUPT, KV_IO. After any but the first a write transaction can only be aborted.
 * Tests:    unit/shard/test_store.c. */
#ifndef KV_SHARD_STORE_INTERNAL_H
#define KV_SHARD_STORE_INTERNAL_H

#include "longkey.h"
#include "residency.h"
#include "store.h"
#include "store_filter.h"
#include "touch.h"
#include "writeback.h"

/* keys     key, or its beginning (longkey.h) -> key row, or node id
 * tails    node id 8 BE || further part of the key -> the same
 * objects  SHA-256 -> object row, which holds a small content whole (rows.h)
 * blobs    object id 8 BE || number of the row 4 BE -> up to KV_BLOB_ROW_BYTES stored bytes, all but the last row full
 * sweep    object id 8 BE -> stored bytes u64: content that nothing refers to, its blob rows wait to be deleted
 * staged   object id 8 BE -> bytes so far u64: content that no object row has adopted yet
 * meta     "identity", "meta", "intents", "redo" (store_meta.h) */
enum store_table {
    STORE_KEYS,
    STORE_TAILS,
    STORE_OBJECTS,
    STORE_BLOBS,
    STORE_SWEEP,
    STORE_STAGED,
    STORE_META,
    STORE_TABLES
};

#define STORE_RESIDENT_BYTES_MAX (96u << 20) /* of the map, while large contents are staged or read */

#define STORE_PATH_BYTES_MAX 4096u
#define STORE_ID_BYTES_MAX 64u

struct store_env;
struct store_txn;

struct store {
    char path[STORE_PATH_BYTES_MAX]; /* what it was opened with */
    uint64_t map_bytes;
    bool read_only;
    struct store_identity identity;
    char store_id[STORE_ID_BYTES_MAX];
    struct store_env *env;
    uint64_t blob_bytes_read; /* since the map was trimmed last */
    struct store_txn *reader; /* loop thread: renewed by store_read_begin */
    bool reading;
    struct longkey_walk walk; /* where store_next_key goes on */
    struct store_filter filter;
    struct writeback *writeback;
    uint64_t whole_pages_max; /* that one transaction may change, */
    size_t piece_rows_max;    /* and the rows of a piece: store_bound */
    uint64_t redo_position;   /* [applier] of the generation that the file `redo` has, 0: of none */
};

/* Write transactions: one at a time, [applier] and store_open. */
enum kv_err txn_begin_write(struct store_env *env, struct store_txn **out);
/* A snapshot of one's own, of any thread; ended by txn_abort. */
enum kv_err txn_begin_read(struct store_env *env, struct store_txn **out);
/* Durable when it returns KV_OK. Ends the transaction whatever happens, and sets *txn to NULL. */
enum kv_err txn_commit(struct store_txn **txn);
void txn_abort(struct store_txn **txn);
/* Of the file that it writes to. */
int txn_file(const struct store_txn *txn);
/* The usual end: commits when `err` is KV_OK, aborts otherwise; returns the first error. */
enum kv_err txn_end(struct store_txn **txn, enum kv_err err);

enum kv_err txn_get(struct store_txn *txn, enum store_table table, struct kv_slice key, struct kv_slice *value);
/* The first row with a key >= `from`, and the row behind the last one that seek or next gave. */
enum kv_err txn_seek(struct store_txn *txn, enum store_table table, struct kv_slice from, struct kv_slice *key,
                     struct kv_slice *value);
enum kv_err txn_next(struct store_txn *txn, enum store_table table, struct kv_slice *key, struct kv_slice *value);
enum kv_err txn_last(struct store_txn *txn, enum store_table table, struct kv_slice *key, struct kv_slice *value);
enum kv_err txn_put(struct store_txn *txn, enum store_table table, struct kv_slice key, struct kv_slice value);
/* As txn_put for a key that is greater than all in the table: pages are filled to the brim. KV_IO if it is not. */
enum kv_err txn_append(struct store_txn *txn, enum store_table table, struct kv_slice key, struct kv_slice value);
enum kv_err txn_delete(struct store_txn *txn, enum store_table table, struct kv_slice key);
/* Deletes the row that seek or next gave; txn_next then gives the one behind it. */
enum kv_err txn_delete_current(struct store_txn *txn, enum store_table table);
enum kv_err txn_count(struct store_txn *txn, enum store_table table, uint64_t *rows);
enum kv_err txn_pages(struct store_txn *txn, enum store_table table, uint64_t *pages);
/* Where the table lies in the map, and how many pages it has. KV_NOT_FOUND: not known. */
enum kv_err txn_tree(struct store_txn *txn, enum store_table table, struct touch_tree *out, uint64_t *pages);
/* These peeked bytes were copied and are not wanted soon: see residency.h. Later peeks are not harmed. */
void txn_leave(struct store_txn *txn, const void *data, size_t bytes);
void store_trim(struct store *store, uint64_t bytes_max);

#endif
