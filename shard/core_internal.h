/* shard/core_internal.h -- what core.c (life), core_fold.c (records), core_write.c (transactions), core_read.c (reads, listing) and
 * core_stage.c (staged content) share. Nobody else. */
#ifndef KV_SHARD_CORE_INTERNAL_H
#define KV_SHARD_CORE_INTERNAL_H

#include "core.h"
#include "intents.h"
#include "ledger.h"
#include "locks.h"

/* A message at the door. `sequence_max`: it waits only for intents up to this one. */
struct request {
    uint64_t session;
    enum kv_msg type;
    uint64_t request_id;
    struct kv_slice body;
    uint64_t sequence_max;
};

/* A large content on its way in. */
struct stage {
    uint64_t object_id;
    uint64_t session;
    struct kv_hash hash;
    uint64_t size;
    uint64_t stored_bytes;
    uint64_t received; /* handed to the applier */
    uint64_t durable;
    UT_hash_handle hh;
};

/* A session that reads an object piece by piece: its blob rows must stay. */
struct hold {
    struct {
        uint64_t session;
        uint64_t object_id;
    } id;
    uint64_t count;
    UT_hash_handle hh;
};

struct core {
    struct core_options options;
    struct core_world world;
    struct ledger ledger;
    struct locks *locks;
    struct intents intents;
    struct parked *stalled; /* PREPARE and APPLY that wait for room in the overlay, utlist */
    size_t stalled_count;
    size_t parked_count;
    struct stage *stages;
    struct hold *holds;
    uint64_t position;             /* of the last record */
    uint64_t now_ms;               /* of the last tick */
    bool changed;                  /* records since the last freeze */
    struct core_stats stats;       /* the counters of it; the gauges are filled in by core_stats */
    struct kv_msg_prepare prepare; /* decoded, under way */
    struct kv_buf existed;         /* what it found: a byte per ADD */
    struct kv_buf record;          /* the body of the record under way */
    struct kv_buf bytes;           /* core_read.c: of the content under way into an answer */
};

struct kv_buf *core_answer(struct core *core, const struct request *request, enum kv_msg type, uint64_t position);
void core_answered(struct core *core);
void core_answer_done(struct core *core, const struct request *request, enum kv_err err, uint64_t position);
enum kv_err core_dispatch(struct core *core, const struct request *request);

/* core_fold.c: each journals and folds one record of our own making. */
/* APPLY or PREPARE. Whoever asked waits for it. */
void core_record_prepare(struct core *core, enum core_record type, const struct kv_msg_prepare *prepare);
/* COMMIT or ABORT, lazily. The intent is gone afterwards. */
void core_record_decision(struct core *core, enum core_record type, struct intent *intent);
/* FORGET, lazily. */
void core_record_forget(struct core *core, uint64_t from_txn_id, uint64_t below_txn_id, struct kv_list open);
/* For the intent of these operations: its keys stay locked whatever becomes of sessions. */
void core_take_locks(struct core *core, uint64_t txn_id, const struct kv_ops *ops);

/* core_write.c */
void core_answer_vote(struct core *core, const struct request *request, enum kv_err err, struct kv_slice existed,
                      uint64_t position);
/* locks_on_granted; `ctx` is the core. */
void core_on_granted(void *ctx, uint64_t txn_id, uint64_t session, uint64_t request_id, const struct kv_slice *keys,
                     size_t count);
enum kv_err core_on_lock(struct core *core, const struct request *request);
enum kv_err core_on_prepare(struct core *core, const struct request *request);
enum kv_err core_on_commit(struct core *core, const struct request *request);
enum kv_err core_on_abort(struct core *core, const struct request *request);
enum kv_err core_on_release(struct core *core, const struct request *request);
enum kv_err core_on_forget(struct core *core, const struct request *request);
enum kv_err core_on_recover(struct core *core, const struct request *request);

/* core_read.c */
enum kv_err core_on_read(struct core *core, const struct request *request);
enum kv_err core_on_open(struct core *core, const struct request *request);
enum kv_err core_on_fetch(struct core *core, const struct request *request);
enum kv_err core_on_close(struct core *core, const struct request *request);
enum kv_err core_on_refs(struct core *core, const struct request *request);
enum kv_err core_on_list(struct core *core, const struct request *request);
/* Drops holds and stages of a session; of all sessions. */
void core_close_reads(struct core *core, uint64_t session);
void core_clear_reads(struct core *core);
/* The object ids that any session holds, ascending, malloc'ed. */
void core_held(const struct core *core, uint64_t **ids, size_t *count);

/* core_stage.c */
enum kv_err core_on_stage(struct core *core, const struct request *request);
enum kv_err core_on_stage_data(struct core *core, const struct request *request);
enum kv_err core_on_stage_file(struct core *core, const struct request *request);
enum kv_err core_on_stage_drop(struct core *core, const struct request *request);
struct stage *core_find_stage(struct core *core, uint64_t object_id);
/* The transaction that brings this staged content is about to be journaled. `redundant`: the content is here already. An id
 * from before a restart may be another content's now: that one is left alone. */
void core_adopt_stage(struct core *core, const struct kv_hash *hash, uint64_t object_id, bool redundant);
void core_close_stages(struct core *core, uint64_t session);
void core_clear_stages(struct core *core);

#endif
