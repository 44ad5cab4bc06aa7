/* shard/core.h -- what one shard decides, as pure code: messages in, answers and journal records out.
 * Does:     reads, locks, prepare/commit/abort, one-step apply, listing, reference counts, recovery reports; the state is a
 *           deterministic fold over the journal's records, so replay and live run the same code (ledger.h).
 * Owns:     the two overlay generations, the lock table (locks.h), open intents and done ids (intents.h), counters.
 * Promises: never blocks, never reads a clock or a disk but through struct core_world. An answer that rests on a record
 *           that may not be durable yet carries that record's position: the rim holds it back until it is.
 * Fails:    store errors other than KV_NOT_FOUND go to world.failed: the rim stops the process.
 * Tests:    unit/shard/test_core.c, sim/. */
#ifndef KV_SHARD_CORE_H
#define KV_SHARD_CORE_H

#include "kv/buf.h"
#include "kv/msg.h"
#include "overlay.h"
#include "store.h"

/* Journal record types: part of the file format. */
enum core_record {
    CORE_RECORD_APPLY = 1,   /* body of PREPARE: a transaction of this shard alone, done */
    CORE_RECORD_PREPARE = 2, /* body of PREPARE: voted yes */
    CORE_RECORD_COMMIT = 3,  /* txn id */
    CORE_RECORD_ABORT = 4,   /* txn id */
    CORE_RECORD_FORGET = 5,  /* body of FORGET */
};

/* The world outside. A session is one connection of a router thread; ids are the rim's, never 0, never reused. */
struct core_world {
    void *ctx;
    /* Starts an answer and returns the buffer to append the body to; answer_end ends it. It may leave once record `position` is
     * durable (0: at once). An answer that need not wait overtakes those of its session that do (shard/outbox.h): requests are
     * matched by id, nobody counts on their order. A session that is gone gets a buffer all the same, thrown away. */
    struct kv_buf *(*answer_begin)(void *ctx, uint64_t session, enum kv_msg type, uint64_t request_id,
                                   uint64_t position);
    void (*answer_end)(void *ctx);
    /* Appends a journal record and returns its position. `lazy`: nobody waits for it, it may go with a later flush. */
    uint64_t (*append)(void *ctx, enum core_record type, struct kv_slice body, bool lazy);
    /* Whether a record of `bytes` fits on the disk and LMDB can take more; `frees`: a delete, which may use the reserve. */
    bool (*room)(void *ctx, uint64_t bytes, bool frees);
    /* Hands a piece of staged content to the applier; core_staged is called when it is durable, and the rim answers DONE. Of a
     * file (piece->file.bytes > 0) the core knows no descriptor: it is the one that came with the message under way. */
    void (*stage)(void *ctx, uint64_t session, uint64_t request_id, const struct store_piece *piece);
    /* Gives up staged content (its blob rows are swept). */
    void (*unstage)(void *ctx, uint64_t object_id);
    void (*failed)(void *ctx, enum kv_err err, const char *what);
    /* Of the session's arena, from this unit on; NULL: it has none. */
    uint8_t *(*slot)(void *ctx, uint64_t session, uint64_t first);

    /* Reads of applied rows: struct store in the shard, a map in the simulation. Peeks until the next turn. */
    enum kv_err (*get_key)(void *ctx, struct kv_slice key, struct kv_slice *row);
    enum kv_err (*get_object)(void *ctx, const struct kv_hash *hash, struct kv_slice *row);
    enum kv_err (*get_blob)(void *ctx, uint64_t object_id, uint64_t offset, uint64_t bytes, struct kv_buf *out);
    enum kv_err (*seek_key)(void *ctx, struct kv_slice from, struct kv_buf *key, struct kv_slice *row);
    enum kv_err (*next_key)(void *ctx, struct kv_buf *key, struct kv_slice *row);
};

struct core_options {
    unsigned shard_index;
    unsigned shard_count;
    uint64_t overlay_bytes_max; /* both generations together; a generation is frozen at half of it */
};

/* A frozen generation on its way to LMDB. Read-only for everyone from core_freeze to core_applied. */
struct core_generation {
    struct overlay *rows;
    struct store_meta meta; /* meta.position must be durable in the journal before this may be applied */
    struct kv_buf intents;  /* what meta.intents borrows */
    uint64_t *held;         /* object ids that readers hold: not to be swept; ascending */
    size_t held_count;
};

struct core_stats {
    uint64_t keys, objects, stored_bytes;
    uint64_t puts, gets, deletes, dedup_hits; /* since start */
    uint64_t commits, aborts, applies, conflicts;
    uint64_t overlay_rows, overlay_bytes;
    uint64_t locks, lock_waits, intents, done, stalled, parked_reads;
    uint64_t object_id_next;
};

struct core;

/* `meta` as store_get_meta gave it, or that of a half applied generation. Then core_restore, if there is one, core_replay for each
 * record, then core_start, then messages. */
struct core *core_new(const struct core_options *options, const struct core_world *world,
                      const struct store_meta *meta);
void core_free(struct core **core);
/* Lays the rows of a half applied generation, which are final and durable, under what comes: it is frozen until core_applied. */
struct core_generation *core_restore(struct core *core, struct store_redo *redo);
enum kv_err core_replay(struct core *core, uint64_t position, uint32_t type, struct kv_slice body);
/* `staged`: ids of store_get_staged; the ones that nothing adopted are given to world.unstage. */
void core_start(struct core *core, const uint64_t *staged, size_t staged_count);

/* One request frame. KV_INVALID: the peer broke the protocol, close the session. HELLO, STATS and PING-like messages
 * are the rim's and never come here. */
enum kv_err core_message(struct core *core, uint64_t session, enum kv_msg type, uint64_t request_id,
                         struct kv_slice body);
/* Before messages that came together: brings near what they will look up here, CORE_FETCH_MAX keys of a table at a time. Returns how many
 * have no row here and come first in `keys` afterwards: those are LMDB's. */
#define CORE_FETCH_MAX 32u
size_t core_fetch(const struct core *core, enum overlay_table table, struct kv_slice *keys, size_t count);
/* The operations that a COMMIT of this transaction will carry out, or NULL. A peek until then. */
const struct kv_ops *core_voted(const struct core *core, uint64_t txn_id);
/* Whether a PREPARE of this key will look its row up: no lock remembers it. */
bool core_will_look_up(const struct core *core, struct kv_slice key);
/* The connection is gone: its locks without intents are released, its waiting requests, holds and stages dropped. */
void core_session_closed(struct core *core, uint64_t session);
/* A piece handed to world.stage is durable, up to `bytes` of its object from the beginning. */
void core_staged(struct core *core, uint64_t object_id, uint64_t bytes);

/* Whether the active generation is worth freezing: half full, or it deletes CORE_DEAD_BYTES of large contents, or `idle` and not
 * empty. Never while one is frozen. */
#define CORE_DEAD_BYTES ((uint64_t)32 << 20) /* as much as is swept with a generation (applier.h) */
bool core_wants_freeze(const struct core *core, bool idle);
/* Freezes the active generation. The caller applies it once meta.position is durable, and then calls core_applied. */
struct core_generation *core_freeze(struct core *core);
/* It will not be applied: its core goes, too, and does not look at it. NULL is accepted. */
void core_generation_free(struct core_generation **generation);
/* It is in LMDB, and reads of the world already see it: releases it, lets stalled writes go on. */
void core_applied(struct core *core, struct core_generation **generation);
/* Refuses with `err` (KV_OVERLOADED or KV_NO_SPACE) the writes that have stalled for `stalled_ms_max`. `now_ms` comes from the
 * caller's clock; call it about every 100 ms. */
void core_tick(struct core *core, uint64_t now_ms, uint64_t stalled_ms_max, enum kv_err err);
void core_stats(const struct core *core, struct core_stats *out);
/* Of these, what is asked for all the time: rows that wait in memory, of both generations. */
void core_waiting(const struct core *core, uint64_t *rows, uint64_t *bytes);
/* Between messages: gives back buffers in which nothing is. */
void core_trim(struct core *core);

#endif
