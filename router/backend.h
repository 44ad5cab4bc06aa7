/* router/backend.h -- what the HTTP side asks of the shards, one instance per router thread.
 * Does:     reads, transactions, staging and listing for one event loop; hides shards, links, retries and two-phase commit.
 * Promises: every request gets its callback exactly once, on the same thread, never from within the asking call; at the latest
 *           after SHARD_WAIT_MS (KV_UNAVAILABLE: surely not done; KV_UNCERTAIN: a write whose outcome is open).
 *           A request survives the death and restart of a shard. Cancelling cuts the callback: a write whose votes are out goes
 *           on, one that still waits for locks or uploads is given up.
 * Slices in results are peeks: valid during the callback.
 * Tests:    unit/router/test_backend_read.c, system/, http/; the pure parts beneath it (txn.h, recovery.h) in unit/ and sim/. */
#ifndef KV_ROUTER_BACKEND_H
#define KV_ROUTER_BACKEND_H

#include "arena.h"
#include "body_file.h"
#include "kv/buf.h"
#include "kv/err.h"
#include "kv/model.h"
#include "marks.h"

struct backend;
struct backend_call; /* a request under way */

/* The caller's answer is no longer wanted: its callback will not run. NULL is accepted. Frees nothing of the caller's. */
void backend_cancel(struct backend_call *call);
/* The same for somebody who wants to know when the shards are through with it: `on_over` runs later, once; never for NULL. */
void backend_cancel_and_tell(struct backend_call *call, void (*on_over)(void *arg), void *arg);

/* ---- reads ---------------------------------------------------------------------------------------------------- */

/* An object that its shard keeps for a reader, for as long as the link lasts that it was opened on. The backend fills it in. */
struct backend_hold {
    struct kv_hash hash;
    uint64_t object_id;
    uint64_t link_generation;
};

struct backend_value {
    struct kv_row row;
    struct kv_object object;  /* object.bytes: the front of the stored form, or all of it */
    struct backend_hold hold; /* with object.held: for backend_fetch, and for backend_close when through */
    struct arena_slot *slot;  /* if it is one, object.bytes lie in it, and last when arena_lend takes it. May be NULL */
};

/* KV_OK, KV_NOT_FOUND, KV_UNAVAILABLE, KV_CORRUPT. A key that was written between the two steps is read again.
 * `value` is NULL unless KV_OK. */
typedef void (*backend_on_value)(void *arg, enum kv_err err, const struct backend_value *value);
/* At most `bytes_max` stored bytes come along (0: only what HEAD needs): all of a small content, of a larger one what the first frame
 * needs, or, without a slot, no more than BACKEND_MESSAGE_BYTES_MAX. */
#define BACKEND_MESSAGE_BYTES_MAX (17 * KV_BLOB_ROW_BYTES) /* the whole of 64 KiB, with its index */
struct backend_call *backend_read(struct backend *backend, struct kv_slice key, uint64_t bytes_max,
                                  backend_on_value on_value, void *arg);

/* The bytes may lie in `slot`, and last if arena_lend takes it. */
typedef void (*backend_on_piece)(void *arg, enum kv_err err, struct kv_slice bytes, struct arena_slot *slot);
/* More stored bytes of a held object. At most KV_PIECE_BYTES_MAX. A shard that restarted has let go of the object: it is opened
 * again by its hash, which changes `hold`; KV_STALE when it is gone. `hold` stays the caller's, and lives until the callback or
 * the cancel. */
struct backend_call *backend_fetch(struct backend *backend, struct backend_hold *hold, uint64_t offset,
                                   uint64_t bytes_max, backend_on_piece on_fetched, void *arg);
/* What was held on a link that is gone is not held any more: then nothing is said. */
void backend_close(struct backend *backend, const struct backend_hold *hold);

/* ---- transactions --------------------------------------------------------------------------------------------- */

enum backend_op_kind { BACKEND_PUT, BACKEND_DELETE, BACKEND_GET, BACKEND_HEAD };

enum backend_match {
    BACKEND_MATCH_NONE,   /* no condition */
    BACKEND_MATCH_ANY,    /* If-Match: * -- the key must exist */
    BACKEND_MATCH_HASH,   /* If-Match: "<sha256>" -- it must hold this content */
    BACKEND_MATCH_ABSENT, /* If-None-Match: * -- it must not exist */
};

/* A content to store. `stored` is the complete stored form (codec.h). Contents above KV_INLINE_BYTES_MAX of stored form are
 * staged by the backend, piece by piece, unless the store has them already; those need not be in memory, but for a GET of
 * the same transaction: without stored.data, `read` brings any part of the form (KV_OK or KV_IO), again and again until the
 * release. */
struct backend_content {
    struct kv_hash hash;
    uint64_t size;
    enum kv_codec codec;
    struct kv_slice stored;
    enum kv_err (*read)(void *read_arg, uint64_t offset, uint8_t *out, size_t bytes);
    void *read_arg;
    /* Without stored.data: the form from `file_from` on lies in this file from `file_offset` on; a shard reads it there. NULL:
     * all of it comes by `read`. */
    struct body_file *file;
    uint64_t file_from;
    uint64_t file_offset;
};

struct backend_op {
    enum backend_op_kind kind;
    struct kv_slice key;
    enum backend_match match;              /* PUT, DELETE */
    struct kv_hash match_hash;             /* BACKEND_MATCH_HASH */
    struct kv_slice content_type;          /* PUT */
    const struct backend_content *content; /* PUT */
    /* PUT, DELETE: what the key seems to hold, without its content type: spares a round when true. txn_id 0: not known. */
    struct kv_row known;
};

/* What one operation did or saw, ops applied in order. */
struct backend_op_result {
    bool found;              /* GET, HEAD: the key exists; PUT, DELETE: it existed before this operation */
    bool existed;            /* PUT: the content was in the store already */
    struct kv_row row;       /* GET, HEAD when found: the row; PUT: the row written */
    uint64_t refs;           /* HEAD, GET when found: keys holding the content, as of the transaction */
    struct kv_slice content; /* GET when found: the content, decoded and checked */
    /* A PUT that is alone: row and refs (1) are what every read finds as long as this holds; a word of 0: not known. */
    struct marks_proof proof;
};

/* KV_OK: all done, `results` has one element per op. KV_PRECONDITION: nothing done, `index` is the op that refused. KV_TOO_LARGE:
 * nothing done, `index` is how many bytes the contents of the GETs have together. KV_OVERLOADED, KV_NO_SPACE, KV_UNAVAILABLE:
 * nothing done. KV_UNCERTAIN: open. KV_CORRUPT: a GET met damaged content, nothing done. `results` is NULL unless KV_OK. */
typedef void (*backend_on_transaction)(void *arg, enum kv_err err, size_t index,
                                       const struct backend_op_result *results);
/* One atomic, isolated, durable transaction of `count` >= 1 ops, whose GETs bring at most `get_bytes_max`. The ops, their keys and
 * contents are borrowed until `release(arg_release)` is called: exactly once, when the backend needs none of it any more, possibly
 * long after the callback. */
struct backend_call *backend_transact(struct backend *backend, const struct backend_op *ops, size_t count,
                                      uint64_t get_bytes_max, void (*release)(void *arg_release), void *arg_release,
                                      backend_on_transaction on_transaction, void *arg);

/* ---- listing and state ---------------------------------------------------------------------------------------- */

struct backend_list {
    struct kv_slice after; /* as in KV_MSG_LIST */
    bool inclusive;
    struct kv_slice prefix;
    struct kv_slice delimiter;
    uint64_t offset;
    uint64_t limit;
};

struct backend_list_entry {
    struct kv_slice key;
    bool is_prefix; /* a shared prefix, `row` is not set */
    struct kv_row row;
    uint64_t refs;
};

/* Entries ascending over all shards; `more`: at least one follows. `total`: all keys of the store. */
typedef void (*backend_on_list)(void *arg, enum kv_err err, const struct backend_list_entry *entries, size_t count,
                                bool more, uint64_t total);
struct backend_call *backend_list(struct backend *backend, const struct backend_list *asked, backend_on_list on_list,
                                  void *arg);

/* Counters of each shard as KV_MSG_COUNTERS bodies; `bodies[i]` is empty for a shard that did not answer within `wait_ms`. One
 * that is known to be down or silent is not waited for. */
typedef void (*backend_on_stats)(void *arg, const struct kv_slice *bodies, unsigned shard_count);
struct backend_call *backend_stats(struct backend *backend, uint64_t wait_ms, backend_on_stats on_stats, void *arg);

/* What waits here now. `answers`: the shard is there; else its calls wait until it is back. */
struct backend_queues {
    uint64_t requests;     /* whose callback is still to come */
    uint64_t transactions; /* not ended at every shard, answered or not */
    unsigned shard_count;
    struct {
        uint64_t calls;
        bool answers;
    } shards[KV_SHARDS_MAX];
};
void backend_queues(const struct backend *backend, struct backend_queues *out);

/* Why the store is not ready, as a sentence in `why`, or true. */
bool backend_ready(struct backend *backend, char *why, size_t why_bytes);

/* ---- life ----------------------------------------------------------------------------------------------------- */

struct kv_settings;
struct st_h2o_context_t;
struct recovery;

/* One per router thread, made on that thread. `sockets_fd`: KV_FD_ROUTER_SOCKETS. Thread 0 also resolves what the last router
 * left (recovery.h). */
struct backend *backend_new(const struct kv_settings *settings, struct st_h2o_context_t *context, int sockets_fd,
                            unsigned thread_index);
/* Right after backend_new: transactions mark what they change (marks.h). */
void backend_use_marks(struct backend *backend, struct marks *marks);
/* Whether what is read from now on may be kept: not while transactions of the last router are in doubt, which nobody marks. */
bool backend_may_keep(const struct backend *backend);
/* Gives back memory in which nothing is. */
void backend_trim(struct backend *backend);
/* Calls under way (a drain waits for 0). */
size_t backend_pending(const struct backend *backend);

#endif
