/* router/backend_internal.h -- what the files of the backend share: backend.c (life, deadlines), backend_pause.c, backend_read.c,
 * backend_arena.c, backend_fetch.c, backend_write.c, backend_load.c, backend_stage.c, backend_list.c, backend_refs.c, backend_stats.c.
 * Nobody else includes it. */
#ifndef KV_ROUTER_BACKEND_INTERNAL_H
#define KV_ROUTER_BACKEND_INTERNAL_H

#include <h2o.h>

#include "backend.h"
#include "calls.h"
#include "codec.h"
#include "forget.h"
#include "recovery.h"
#include "shard_link.h"
#include "txn.h"

#define BACKEND_CREATIONS_FIRST 8 /* a new store is filled first */
/* The first pause of a call takes MIN at most, each further one up to twice the last, none more than MAX. */
#define BACKEND_PAUSE_MS_MIN 2u
#define BACKEND_PAUSE_MS_MAX 64u
#define BACKEND_PAUSE_TICK_MS 1u

/* Asks one shard now and then whether it still answers: a process that hangs keeps its link. */
struct backend_ping {
    struct call *call; /* under way, or NULL */
    uint64_t since_ms; /* when it was asked; the last time, when none is under way */
    uint64_t heard_ms; /* when it last answered, or greeted */
    bool told;         /* that it does not */
};

/* Pieces of large contents on their way to one shard, and who waits to send more (backend_stage.c). */
struct stage_room {
    uint64_t bytes;         /* under way */
    struct stager *waiting; /* utlist, first come first served */
};

/* Pieces on their way from one shard, and who waits to ask for more (backend_fetch.c). */
struct fetch_room {
    unsigned pieces;
    struct fetch_call *waiting; /* utlist, first come first served */
};

/* What the bytes of one shard come in (backend_arena.c). */
struct arena_room {
    struct arena *arena; /* NULL: they come inside of messages */
    uint64_t generation; /* of the link that it was made for, or should have been; 0: none was wanted yet */
};

struct backend {
    h2o_context_t *context;
    unsigned thread_index;
    unsigned shard_count;
    uint64_t epoch;
    uint64_t wait_ms;
    struct shard_links *links;
    struct calls *calls;
    struct txns *txns;
    struct txn_ids *ids;       /* of the whole router */
    struct marks *marks;       /* of the whole router; NULL in tests */
    struct recovery *recovery; /* thread 0 only */
    struct forget *forget;     /* thread 0 only */
    struct codec *codec;       /* decodes contents of GETs in batches */
    struct backend_call *list; /* all calls under way, utlist */
    size_t count;
    struct stage_room stage_rooms[KV_SHARDS_MAX];
    struct fetch_room fetch_rooms[KV_SHARDS_MAX];
    struct arena_room arena_rooms[KV_SHARDS_MAX];
    h2o_timeout_t tick;
    h2o_timeout_entry_t tick_entry;
    h2o_timeout_entry_t failures; /* on zero_timeout, when some call's `failed` is set */
    h2o_timeout_t pause_tick;
    h2o_timeout_entry_t pause_entry;
    struct backend_call *paused;                 /* utlist, by pause_prev and pause_next */
    void (*arm_pauses)(struct backend *backend); /* backend_resume_due is to be called in BACKEND_PAUSE_TICK_MS */
    uint64_t chance;
    struct backend_ping pings[KV_SHARDS_MAX];
    int creations; /* above 0: of late, writes have met no keys that existed (backend_write.c) */
};

/* The head of every kind of call. */
struct backend_call {
    struct backend *backend;
    bool wanted;          /* the caller waits for its callback */
    enum kv_err failed;   /* set: the callback is due at the end of this turn */
    uint64_t deadline_ms; /* kv_clock_ms */
    /* Runs the callback with this error if it is still wanted, then ends the call, now or when its last answer is in. */
    void (*fail)(struct backend_call *call, enum kv_err err);
    struct backend_call *prev, *next;
    void (*on_over)(void *arg); /* of a cancelled one, or NULL */
    void *on_over_arg;
    void (*resume)(struct backend_call *call); /* set: it pauses */
    uint64_t resume_ms;
    unsigned pauses; /* so far */
    struct backend_call *pause_prev, *pause_next;
};

/* Allocates `bytes` (a kind of call, the head first), links it, sets the deadline. */
void *backend_call_new(struct backend *backend, size_t bytes, void (*fail)(struct backend_call *call, enum kv_err err));
/* Unlinks and frees the head's memory; the kind frees what it owns before. */
void backend_call_end(struct backend_call *call);
/* Progress was made: the deadline starts anew. */
void backend_call_renew(struct backend_call *call);
/* Lets `fail` run at the end of the turn, for refusals known while the caller still asks. */
void backend_call_fail_later(struct backend_call *call, enum kv_err err);
/* Runs `resume` after a short pause, unless the call ends before: when it begins again because of somebody else. */
void backend_call_pause(struct backend_call *call, void (*resume)(struct backend_call *call));
void backend_call_unpause(struct backend_call *call);
void backend_resume_due(struct backend *backend);
/* The link is up, and the shard was not silent for too long. */
bool backend_shard_answers(const struct backend *backend, unsigned shard_index);
unsigned backend_shard_of(const struct backend *backend, const struct kv_hash *hash);

/* Of an object that an answer has just said to be held. */
struct backend_hold backend_hold_now(const struct backend *backend, const struct kv_hash *hash, uint64_t object_id);
/* Nobody wants the object of this OPEN any more, which is under way (NULL is accepted): what the shard comes to hold for it is
 * closed. */
void backend_abandon_open(struct backend *backend, struct call *call, const struct kv_hash *hash);

/* ---- contents on their way to a shard (backend_stage.c) ------------------------------------------------------- */

struct stager;
/* `object_id` 0: the shard has the content already. KV_NO_SPACE. */
typedef void (*stager_on_staged)(void *arg, enum kv_err err, uint64_t object_id, uint64_t link_generation);
/* `content` is borrowed until the callback or the cancel; `call` is renewed with each piece that became durable. */
struct stager *stager_new(struct backend_call *call, const struct backend_content *content, stager_on_staged on_staged,
                          void *arg);
/* Gives up what was staged. NULL is accepted. */
void stager_cancel(struct stager *stager);
/* Gives up a content that is through staging; harmless when a transaction has adopted it. `object_id` 0 is accepted. The link that
 * it was staged over has this generation: when it is gone, so is the content, and its id may be another's now. */
void backend_stage_drop(struct backend *backend, const struct kv_hash *hash, uint64_t object_id,
                        uint64_t link_generation);

/* ---- slots that bytes come in (backend_arena.c) --------------------------------------------------------------- */

/* Before a message that may name a slot is sent: the link gets an arena if it has none yet. */
void backend_renew_arena(struct backend *backend, unsigned shard_index);
/* While that message is written, perhaps again over a new link. False: the bytes come inside of its answer. */
bool backend_take_slot(struct backend *backend, unsigned shard_index, uint64_t bytes, struct arena_slot *slot);
/* Where the answer says that `slot_bytes` lie in the slot, `bytes` are these; 0: they came along, and the slot is given back. False:
 * there is no such slot. */
bool backend_take_from_slot(struct arena_slot *slot, uint64_t slot_bytes, struct kv_slice *bytes);
/* Gives back memory of arenas of which no slot is taken. */
void backend_trim_arenas(struct backend *backend);

/* ---- reference counts (backend_refs.c) ------------------------------------------------------------------------ */

struct refs;
/* From an answer, once; may free. */
typedef void (*refs_on_counted)(void *arg);
struct refs *refs_new(struct backend *backend, size_t count_max, refs_on_counted on_counted, void *arg);
/* The count of this content goes to `*out`; both are borrowed. */
void refs_add(struct refs *refs, const struct kv_hash *hash, uint64_t *out);
/* Asks for all that was added. False: that is nothing, and on_counted will not run. */
bool refs_ask(struct refs *refs);
/* Takes back what is under way. Sets NULL, which is accepted. */
void refs_free(struct refs **refs);

/* ---- contents on their way from the shards (backend_load.c) --------------------------------------------------- */

struct plan;
struct loader;
/* KV_OK: refs and contents of the plan are filled in. KV_CONFLICT: a content is gone, so a lock was lost. KV_CORRUPT. */
typedef void (*loader_on_loaded)(void *arg, enum kv_err err);
/* Never calls back from within; NULL when the plan wants nothing. */
struct loader *loader_new(struct backend *backend, struct plan *plan, loader_on_loaded on_loaded, void *arg);
void loader_cancel(struct loader *loader);

#endif
