/* shard/applier.h -- the thread that carries rows into LMDB, "kv-applier", so that the loop never waits for a disk.
 * Does:     applies a frozen generation, stages pieces of large contents (several in one transaction), gives up staged
 *           contents, deletes blob rows of dead objects when there is nothing else to do, and lets the store learn its rows.
 * Owns:     the thread, the queue, copies of the queued pieces, their descriptors. A generation stays the caller's and is only read.
 * Promises: pieces and give-ups are done in the order they were queued; a result is reported once, after its transaction is
 *           durable. A generation before staged pieces when both wait, then in turns.
 * Limits:   APPLIER_GROUP_BYTES of pieces in one transaction. The queue is bounded by its users (sessions.h).
 * Fails:    KV_NO_SPACE on a generation: kept and tried again every APPLIER_RETRY_MS, applier_full() meanwhile; on pieces: reported
 *           to whoever sent them. Anything else is a result of kind APPLIER_FAILED: the caller stops the process.
 * Threads:  everything here belongs to the loop thread; world's functions run on the applier's.
 * Tests:    unit/shard/test_applier.c. */
#ifndef KV_SHARD_APPLIER_H
#define KV_SHARD_APPLIER_H

#include "core.h"
#include "kv/histogram.h"

#define APPLIER_GROUP_BYTES (16u * 1024 * 1024)
#define APPLIER_RETRY_MS 500u
#define APPLIER_SWEEP_ROWS 8192u /* blob rows deleted in one transaction: 32 MiB of content, */
#define APPLIER_SWEEP_GROUPS 2u  /* and at least one such for as much staged */

/* What the thread does to the store: applier_store_world in the shard, a faulty twin in tests. */
struct applier_world {
    void *ctx;
    enum kv_err (*apply)(void *ctx, const struct core_generation *generation, size_t sweep_rows_max);
    enum kv_err (*stage)(void *ctx, const struct store_piece *pieces, size_t count);
    enum kv_err (*unstage)(void *ctx, const uint64_t *object_ids, size_t count);
    /* KV_NOT_FOUND: nothing left. `held` ids stay. */
    enum kv_err (*sweep)(void *ctx, const uint64_t *held, size_t held_count, size_t sweep_rows_max);
    /* One step, after each generation and while there is more. KV_NOT_FOUND: nothing left. */
    enum kv_err (*learn)(void *ctx);
    /* Gives back the memory that it took and that was freed since, when applier_trim asks for it. */
    void (*trim)(void *ctx);
};
struct applier_world applier_store_world(struct store *store);

struct applier;

struct applier *applier_new(const struct applier_world *world);
/* Finishes the transaction under way, drops what is still queued, ends the thread. */
void applier_free(struct applier **applier);

/* At most one generation at a time; its meta.position is durable in the journal. Untouched until APPLIER_APPLIED. */
void applier_apply(struct applier *applier, struct core_generation *generation);
/* Copies the bytes; a descriptor is the applier's from now on. */
void applier_stage(struct applier *applier, uint64_t session, uint64_t request_id, const struct store_piece *piece);
void applier_unstage(struct applier *applier, uint64_t object_id);

enum applier_kind { APPLIER_APPLIED, APPLIER_STAGED, APPLIER_FAILED };

struct applier_result {
    enum applier_kind kind;
    enum kv_err err;  /* STAGED: KV_OK, KV_NO_SPACE, or KV_IO: its file cannot be read. FAILED: what happened */
    const char *what; /* FAILED: static text */
    uint64_t session; /* STAGED: as given to applier_stage */
    uint64_t request_id;
    uint64_t object_id;
    uint64_t offset;
    uint64_t bytes;
    uint64_t copied_bytes; /* of these, as given in memory */
};

/* Readable (eventfd) when there are results or applier_full changed; the reader reads it empty, then takes all results. */
int applier_event_fd(const struct applier *applier);
/* The oldest result, false when there is none. */
bool applier_next(struct applier *applier, struct applier_result *out);
/* The generation given last met a full disk or map and is tried again. */
bool applier_full(const struct applier *applier);
/* Nothing is queued, under way or to be swept: until it is given something it does not touch the store. */
bool applier_is_idle(struct applier *applier);
/* Before it rests again, the thread gives back memory. */
void applier_trim(struct applier *applier);
/* Pieces or give-ups queued or under way. */
bool applier_staging(struct applier *applier);

struct applier_stats {
    struct kv_histogram generation_ns; /* one value for each generation applied */
    uint64_t generation_rows, generation_ns_max, generations_refused;
    uint64_t stage_groups, stage_pieces, stage_bytes, stage_ns, stage_queue_bytes;
    uint64_t sweeps, sweep_ns;
};
void applier_stats(struct applier *applier, struct applier_stats *out);

#endif
