/* shard/ledger.h -- the rows of a shard as a fold over its journal: overlay over overlay over LMDB.
 * Does:     looks rows up (active generation, frozen generation, applied rows), and folds operations into rows: keys set and
 *           cleared, references added and dropped, contents born with their first reference and deleted with their last.
 * Owns:     both overlays, the counters, and per content the votes given and not decided ("pending").
 * Promises: deterministic: the same records in the same order give the same rows. Each row carries the position that must be
 *           durable before it may be shown. An object row exists exactly while references or pending adds exist.
 * Fails:    store errors go to world.failed; the lookup then reads as KV_NOT_FOUND.
 * Tests:    unit/shard/test_core.c, sim/. */
#ifndef KV_SHARD_LEDGER_H
#define KV_SHARD_LEDGER_H

#include "core.h"
#include "wire/messages.h"

struct pending;

#ifndef LEDGER_MEMOS      /* the simulation has few, so that they are forgotten */
#define LEDGER_MEMOS 512u /* a power of two: 64 KiB */
#endif

/* What the last lookup of a content found: one write asks for the same content five times, and each would be a way down LMDB's
 * tree. Rows of contents change through the ledger only, so a memo stays true whatever is frozen or applied. */
struct ledger_memo {
    struct kv_hash hash;
    bool valid;
    enum kv_err err;
    struct kv_object object;
    uint64_t position;
};

struct ledger {
    const struct core_world *world;
    struct overlay *active;
    struct overlay *frozen; /* NULL when none */
    struct pending *pending;
    uint64_t object_id_next;
    uint64_t keys, objects, stored_bytes;
    int64_t keys_pending; /* what open votes will change `keys` by */
    uint64_t dead_bytes;  /* of large contents that the active generation deletes: on the disk until it is applied */
    struct ledger_memo *memos; /* by the first bits of the hash */
};

void ledger_init(struct ledger *ledger, const struct core_world *world, const struct store_meta *meta);
void ledger_clear(struct ledger *ledger);

/* Before `count` look-ups, CORE_FETCH_MAX at most: brings near what they need of both generations. Returns how many keys have no row
 * there; those come first afterwards. */
size_t ledger_fetch(const struct ledger *ledger, enum overlay_table table, struct kv_slice *keys, size_t count);
/* KV_OK or KV_NOT_FOUND. `position` must be durable before the answer (either one) may be shown. Slices are peeks. */
enum kv_err ledger_get_key(struct ledger *ledger, struct kv_slice key, struct kv_row *out, uint64_t *position);
/* refs: settled ones only; bytes: none. */
enum kv_err ledger_get_object(struct ledger *ledger, const struct kv_hash *hash, struct kv_object *out,
                              uint64_t *position);
/* The same with the bytes of a small content (object_id 0), a peek. */
enum kv_err ledger_open_object(struct ledger *ledger, const struct kv_hash *hash, struct kv_object *out,
                               uint64_t *position);
/* Keys that hold the content once all votes given here are decided well: what X-Refs shows. */
uint64_t ledger_refs(const struct ledger *ledger, const struct kv_hash *hash, uint64_t settled_refs);
/* Settled references that no vote given here drops: what another vote may promise to drop. */
uint64_t ledger_refs_unpromised(const struct ledger *ledger, const struct kv_hash *hash, uint64_t settled_refs);
/* Appends stored bytes of an object that has them elsewhere than in its row. */
enum kv_err ledger_get_bytes(struct ledger *ledger, const struct kv_object *object, uint64_t offset, uint64_t bytes,
                             struct kv_buf *out);

/* Folds. `ops` was validated; `existed` receives a byte per ADD: was the content here before. */
void ledger_prepare(struct ledger *ledger, const struct kv_ops *ops, uint64_t position, struct kv_buf *existed);
/* `position`: 0 when the votes were durable before (COMMIT), the record's own for a one-step APPLY. */
void ledger_commit(struct ledger *ledger, uint64_t txn_id, const struct kv_ops *ops, uint64_t position);
void ledger_abort(struct ledger *ledger, const struct kv_ops *ops, uint64_t position);
/* After a restart: counts the votes of an intent that LMDB's meta row carried over; its object rows are there already. */
void ledger_restore_votes(struct ledger *ledger, const struct kv_ops *ops);

#endif
