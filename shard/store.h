/* shard/store.h -- this shard's LMDB environment (only store.c and store_txn.c call LMDB).
 * Does:     tables keys, tails, objects, blobs, sweep, staged, meta; reads for the loop, large transactions for the applier.
 * Owns:     DB_PATH/shard-<i>/data.mdb, lock.mdb and redo. One environment per process, opened after exec, MDB_NOTLS|MDB_NORDAHEAD,
 *           default sync flags.
 * Promises: an apply is all of a generation with its journal position, or nothing: one LMDB transaction, or, where that would change
 *           more than STORE_WHOLE_PAGES_MAX pages, several, before the first of which the file `redo` has the generation (store_redo.h).
 *           Until the last of them reads need its rows laid over those of LMDB, as they are while it is applied; a start gets
 *           them by store_get_redo.
 *           Keys of 1 to 4,096 bytes keep exact byte order (longkey.h). Blob rows have at most KV_BLOB_ROW_BYTES.
 * Threads:  reads belong to the loop thread, everything marked [applier] to the applier thread.
 * Fails:    KV_NO_SPACE (disk or map full: transaction rolled back, reads go on), KV_CORRUPT (page or row damaged),
 *           KV_IO (anything else: the caller stops the shard).
 * Tests:    unit/shard/test_store.c, unit/shard/test_longkey.c. */
#ifndef KV_SHARD_STORE_H
#define KV_SHARD_STORE_H

#include "kv/err.h"
#include "kv/model.h"
#include "overlay.h"

/* 2: small contents lie in their object rows (rows.h). Files of 1 are read as they are, and become 2 with the first generation that is
 * applied to them: until then an older build takes them back, from then on it refuses them. */
#define STORE_FORMAT_VERSION 2u
#define STORE_FORMAT_VERSION_MIN 1u
/* What the files say while a generation is half applied: an older build does not know of `redo`. */
#define STORE_FORMAT_VERSION_HALF 3u

/* What is written with every generation and read at start. */
struct store_meta {
    uint64_t position;       /* last journal record applied: replay starts behind it */
    uint64_t object_id_next; /* ids below were given out */
    uint64_t keys;           /* rows in keys, all of them */
    uint64_t objects;
    uint64_t stored_bytes;   /* of all objects, unique content on disk */
    struct kv_slice intents; /* open transactions and done ids, encoded by core.c, opaque here */
};

struct store_identity {
    uint64_t shard_index;
    uint64_t shard_count;
    const char *store_id; /* 32 hex digits */
};

struct store_usage {
    uint64_t map_bytes;      /* MAP_SIZE */
    uint64_t used_bytes;     /* pages in use, free-list pages not counted as used */
    uint64_t readers_oldest; /* transactions behind the newest that the oldest reader is, 0 = none */
    uint64_t sweep_objects;  /* deleted objects whose blob rows still wait */
    /* Rows looked up that are not there, since the process began: answered by the filter (store_filter.h), and by LMDB. */
    uint64_t absent_by_filter, absent_by_lmdb;
};

struct store;

/* Opens or creates in the directory `path` ("/proc/self/fd/6" is one). `read_only`: neither creates nor changes anything, and takes no
 * lock, so nobody else may have it open. KV_INVALID: made by another shard, count, store or format; `why` then says so in one
 * sentence. */
enum kv_err store_open(const char *path, uint64_t map_bytes, bool read_only, const struct store_identity *identity,
                       char *why, size_t why_bytes, struct store **out);
void store_close(struct store **store);
/* A generation that may change more than STORE_WHOLE_PAGES_MAX pages, 128 MiB of memory, or more than `bytes_max` of them, goes in by
 * pieces of a quarter as many rows, 32 MiB. Before the first generation. */
#define STORE_WHOLE_PAGES_MAX 32768u
#define STORE_PIECE_ROWS_MAX 8192u
#define STORE_PIECE_BYTES_MAX (16u << 20)
void store_bound(struct store *store, uint64_t bytes_max);
/* Closes the environment and opens it again, as the only way to make LMDB give back the memory of its largest transaction: a page of
 * heap for each page written. Loop thread, not within a read, while the applier has nothing to do. On an error the store
 * can only be closed. */
enum kv_err store_renew(struct store *store, char *why, size_t why_bytes);

/* ---- loop thread ---------------------------------------------------------------------------------------------- */

/* All reads between these two see one snapshot; results are peeks that end with store_read_end. Cheap
 * (mdb_txn_renew / reset). Reads outside of them are a bug. */
enum kv_err store_read_begin(struct store *store);
void store_read_end(struct store *store);

/* Bring rows that will be looked up into the processor's caches together, at most TOUCH_ROWS_MAX (touch.h): of contents; of keys; of keys
 * and of those of their contents that are on this shard. Return how many there are; what the filter denies leaves `keys`. Do nothing,
 * and return 0, for a single row, and for a table below STORE_TOUCH_BYTES_MIN, which is in the caches anyway. */
#define STORE_TOUCH_BYTES_MIN ((uint64_t)4 << 20)
size_t store_touch_objects(struct store *store, struct kv_slice *hashes, size_t count);
size_t store_touch_keys(struct store *store, struct kv_slice *keys, size_t count);
size_t store_touch_reads(struct store *store, struct kv_slice *keys, size_t count);

enum kv_err store_get_key(struct store *store, struct kv_slice key, struct kv_slice *row);
enum kv_err store_get_object(struct store *store, const struct kv_hash *hash, struct kv_slice *row);
/* Appends `bytes` stored bytes of an object from `offset` to `out`; KV_CORRUPT when rows are missing. */
enum kv_err store_get_blob(struct store *store, uint64_t object_id, uint64_t offset, uint64_t bytes,
                           struct kv_buf *out);
/* The first key >= `from`. `key` is appended to the emptied buffer (long keys are put together), `row` is a peek. */
enum kv_err store_seek_key(struct store *store, struct kv_slice from, struct kv_buf *key, struct kv_slice *row);
/* The key behind the last one that seek or next gave, within the same read_begin. KV_NOT_FOUND at the end. */
enum kv_err store_next_key(struct store *store, struct kv_buf *key, struct kv_slice *row);
/* Copies the meta row; `intents_out` receives the bytes that out->intents then borrows. A new store gives zeros
 * and object_id_next = 1. */
enum kv_err store_get_meta(struct store *store, struct store_meta *out, struct kv_buf *intents_out);
/* A generation that is half applied: the last process ended in the midst of it. */
struct store_redo {
    struct overlay *rows; /* final ones, durable */
    struct store_meta meta;
    struct kv_buf intents; /* what meta.intents borrows */
};
static inline void store_redo_free(struct store_redo *redo)
{
    overlay_free(&redo->rows);
    kv_buf_free(&redo->intents);
}
/* KV_NOT_FOUND: there is none. It must be laid over all reads until store_apply was given it again. KV_CORRUPT with a sentence. */
enum kv_err store_get_redo(struct store *store, char *why, size_t why_bytes, struct store_redo *out);
/* Ids of contents that were staged and not adopted by an applied object row. */
enum kv_err store_get_staged(struct store *store, struct kv_buf *ids /* array of uint64_t */);
enum kv_err store_usage(struct store *store, struct store_usage *out);

/* ---- applier thread ------------------------------------------------------------------------------------------- */

/* [applier] Writes a frozen generation and its meta row, in key order per table:
 *   KEYS rows set or deleted; OBJECTS rows set or deleted, and whenever the row in LMDB had an object id, and another one, that id goes to
 *   `sweep`; a set object row takes its id out of `staged`; BLOBS split into rows of KV_BLOB_ROW_BYTES, appended where the
 *   order allows. Then up to `sweep_rows_max` blob rows of ids in `sweep` are deleted in id order, leaving out the ids in
 *   `pinned` (ascending array of `pinned_count`).
 * On an error it may be half applied: then the same one must be given again before any other. */
enum kv_err store_apply(struct store *store, const struct overlay *generation, const struct store_meta *meta,
                        const uint64_t *pinned, size_t pinned_count, size_t sweep_rows_max);
/* [applier] One step towards knowing which rows are not there (store_filter.h). KV_NOT_FOUND: there is nothing to learn. */
enum kv_err store_learn(struct store *store);
/* [applier] Deletes blob rows of swept ids alone, as above; KV_NOT_FOUND when nothing was left to do. */
enum kv_err store_sweep(struct store *store, const uint64_t *pinned, size_t pinned_count, size_t sweep_rows_max);

/* One piece of staged content, of object `object_id` at `offset` (a multiple of KV_BLOB_ROW_BYTES): `bytes`, and behind them
 * what lies in a file. */
struct store_piece {
    uint64_t object_id;
    uint64_t offset;
    struct kv_slice bytes;
    struct {
        int fd;
        uint64_t offset;
        uint64_t bytes; /* 0: there is no file */
    } file;
};
static inline uint64_t store_piece_bytes(const struct store_piece *piece)
{
    return piece->bytes.bytes + piece->file.bytes;
}
/* [applier] Writes the pieces in one durable transaction and marks their ids as staged. KV_INVALID: a piece's file cannot be
 * read, or has fewer bytes; nothing was written. */
enum kv_err store_stage(struct store *store, const struct store_piece *pieces, size_t count);
/* [applier] Gives the blob rows of staged ids to `sweep`. */
enum kv_err store_unstage(struct store *store, const uint64_t *object_ids, size_t count);

/* Walks everything and checks it: every key row and object row decodes, every object has all its blob rows, counts and bytes of
 * meta agree, no blob row is without an object, staged or swept id. `why` names the first fault. Loop thread, for tests
 * and `kv-shard --check`. */
enum kv_err store_check(struct store *store, char *why, size_t why_bytes);

#endif
