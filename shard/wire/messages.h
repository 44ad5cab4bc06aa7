/* shard/wire/messages.h -- the bodies of kv/msg.h as structures, encoded and decoded in one place.
 * kv_put_X appends the body of message X to `buf` (behind kv_frame_begin). kv_get_X decodes a whole body: KV_OK, or
 * KV_INVALID with `out` in no particular state; slices borrow from `body`. Arrays of unknown length are left in
 * encoded form and walked with the matching cursor, so decoding never allocates; kv_get_X has checked that the
 * cursor will succeed element by element. Operations alone are decoded into an array, since a shard looks at each several times.
 * Tests: unit/wire/test_messages.c, unit/wire/test_message_limits.c, fuzz/fuzz_frame.c. */
#ifndef KV_WIRE_MESSAGES_H
#define KV_WIRE_MESSAGES_H

#include "kv/model.h"
#include "wire/frame.h"
#include "wire/pack.h"

/* Elements still encoded; `count` of them. Walk with kv_next_*: true and `out` set, or false at the end. */
struct kv_list {
    struct kv_slice encoded;
    size_t count;
};

bool kv_next_key(struct kv_list *keys, struct kv_slice *out);
bool kv_next_hash(struct kv_list *hashes, struct kv_hash *out);
bool kv_next_uint(struct kv_list *numbers, uint64_t *out);
bool kv_next_bool(struct kv_list *flags, bool *out);
/* `present` false: nil, `out` untouched. */
bool kv_next_row(struct kv_list *rows, bool *present, struct kv_row *out);

struct kv_msg_hello {
    uint64_t version;
    enum kv_role role;
    uint64_t shard_index; /* who the shard is, or whom the router looks for */
    uint64_t shard_count;
    uint64_t epoch;
    uint64_t thread_index; /* of the router: a thread has one link at a time, a new one ends the old; 0 from a shard */
};
void kv_put_hello(struct kv_buf *buf, const struct kv_msg_hello *hello);
enum kv_err kv_get_hello(struct kv_slice body, struct kv_msg_hello *out);

/* READ; OPEN, FETCH, CLOSE, STAGE_DROP and the one-number messages follow the same pattern. */
struct kv_msg_read {
    struct kv_slice key;
    uint64_t bytes_max; /* stored bytes that may come along when the content lives on the same shard */
};
void kv_put_read(struct kv_buf *buf, const struct kv_msg_read *read);
enum kv_err kv_get_read(struct kv_slice body, struct kv_msg_read *out);

struct kv_msg_row {
    enum kv_err err; /* KV_OK or KV_NOT_FOUND */
    bool has_row;
    struct kv_row row;
    bool has_object;
    struct kv_object object;
};
void kv_put_row(struct kv_buf *buf, const struct kv_msg_row *row);
enum kv_err kv_get_row(struct kv_slice body, struct kv_msg_row *out);

/* Within the arena: if one is named the bytes shall go there, KV_SLOT_BYTES_MAX at most, and not into the answer. */
struct kv_msg_slot {
    bool named;
    uint64_t first; /* unit */
};

struct kv_msg_open {
    struct kv_hash hash;
    uint64_t bytes_max;
    struct kv_msg_slot slot;
};
void kv_put_open(struct kv_buf *buf, const struct kv_msg_open *open);
enum kv_err kv_get_open(struct kv_slice body, struct kv_msg_open *out);

struct kv_msg_object {
    enum kv_err err; /* KV_OK or KV_NOT_FOUND */
    struct kv_object object;
    uint64_t slot_bytes; /* above 0: object.bytes are these, in the slot that was named */
};
void kv_put_object(struct kv_buf *buf, const struct kv_msg_object *object);
enum kv_err kv_get_object(struct kv_slice body, struct kv_msg_object *out);

struct kv_msg_fetch {
    uint64_t object_id;
    uint64_t offset; /* into the stored form */
    uint64_t bytes_max;
    struct kv_msg_slot slot;
};
void kv_put_fetch(struct kv_buf *buf, const struct kv_msg_fetch *fetch);
enum kv_err kv_get_fetch(struct kv_slice body, struct kv_msg_fetch *out);

struct kv_msg_piece {
    enum kv_err err;
    bool in_slot; /* then there are no bytes here, but slot_bytes in the slot that was named */
    uint64_t slot_bytes;
    struct kv_slice bytes;
};
void kv_put_piece(struct kv_buf *buf, const struct kv_msg_piece *piece);
/* The same for KV_OK, without the bytes: exactly so many are to be appended. */
void kv_put_piece_begin(struct kv_buf *buf, size_t bytes);
enum kv_err kv_get_piece(struct kv_slice body, struct kv_msg_piece *out);

/* CLOSE, STAGE_DROP, COMMIT, ABORT, RELEASE: one number, an object or transaction id. */
void kv_put_id(struct kv_buf *buf, uint64_t id);
enum kv_err kv_get_id(struct kv_slice body, uint64_t *out);

/* DONE: one error number. */
void kv_put_done(struct kv_buf *buf, enum kv_err err);
enum kv_err kv_get_done(struct kv_slice body, enum kv_err *out);

/* FORGET, and the same body in the journal: every transaction from `from_txn_id` up to `below_txn_id` has ended everywhere, but for
 * those of `open`, which kv_pack_uint writes behind kv_put_forget_begin. */
void kv_put_forget_begin(struct kv_buf *buf, uint64_t from_txn_id, uint64_t below_txn_id, size_t open_count);
enum kv_err kv_get_forget(struct kv_slice body, uint64_t *from_txn_id, uint64_t *below_txn_id, struct kv_list *open);

/* RECOVER, STATS, ARENA: the empty array. */
void kv_put_empty(struct kv_buf *buf);
enum kv_err kv_get_empty(struct kv_slice body);

/* REFS: hashes. COUNTS: err and numbers, here and in LOCK, LOCKED, VOTE written element by element. */
void kv_put_refs_begin(struct kv_buf *buf, size_t count);
void kv_put_hash(struct kv_buf *buf, const struct kv_hash *hash);
enum kv_err kv_get_refs(struct kv_slice body, struct kv_list *hashes);
void kv_put_counts_begin(struct kv_buf *buf, enum kv_err err, size_t count); /* then kv_pack_uint */
enum kv_err kv_get_counts(struct kv_slice body, enum kv_err *err, struct kv_list *numbers);

struct kv_msg_list {
    struct kv_slice after; /* start behind this key, or at it when `inclusive`; empty = from the beginning */
    bool inclusive;
    struct kv_slice prefix;    /* may be empty */
    struct kv_slice delimiter; /* empty = none */
    uint64_t limit;            /* entries, at least 1 */
};
void kv_put_list(struct kv_buf *buf, const struct kv_msg_list *list);
enum kv_err kv_get_list(struct kv_slice body, struct kv_msg_list *out);

/* Entries ascending; an entry without a row is a shared prefix (it ends in the delimiter). */
struct kv_msg_page {
    enum kv_err err;
    bool more;     /* entries follow, or, with `resume`, may follow */
    uint64_t keys; /* all keys of the shard, votes given counted */
    struct kv_list entries;
    struct kv_slice resume; /* the step was cut here: go on at this key, inclusive. Empty: behind the last entry */
};
void kv_put_page_begin(struct kv_buf *buf, const struct kv_msg_page *page); /* then page->entries.count entries */
void kv_put_page_entry(struct kv_buf *buf, struct kv_slice key, const struct kv_row *row_or_null);
enum kv_err kv_get_page(struct kv_slice body, struct kv_msg_page *out);
bool kv_next_page_entry(struct kv_list *entries, struct kv_slice *key, bool *has_row, struct kv_row *row);

void kv_put_lock_begin(struct kv_buf *buf, uint64_t txn_id, size_t count); /* then kv_put_key, ascending */
void kv_put_key(struct kv_buf *buf, struct kv_slice key);
enum kv_err kv_get_lock(struct kv_slice body, uint64_t *txn_id, struct kv_list *keys);

void kv_put_locked_begin(struct kv_buf *buf, enum kv_err err, size_t count); /* then kv_put_row_or_nil */
void kv_put_row_or_nil(struct kv_buf *buf, const struct kv_row *row_or_null);
enum kv_err kv_get_locked(struct kv_slice body, enum kv_err *err, struct kv_list *rows);

/* Operations, their slices borrowed. Zero-initialised is empty; decoding into it again uses its memory again. */
struct kv_ops {
    struct kv_op *at;
    size_t count;
    size_t capacity;
};
void kv_put_ops(struct kv_buf *buf, const struct kv_ops *ops);
/* At most KV_TXN_OPS_MAX. */
void kv_read_ops(struct kv_unpack *in, struct kv_ops *out);
void kv_ops_free(struct kv_ops *ops);

/* PREPARE and APPLY, and the same bodies in the journal. `ops` as above, also after an error. */
struct kv_msg_prepare {
    uint64_t txn_id;
    kv_shard_set participants;
    struct kv_ops ops;
};
void kv_put_prepare(struct kv_buf *buf, const struct kv_msg_prepare *prepare);
/* The same without the operations. */
void kv_put_prepare_begin(struct kv_buf *buf, uint64_t txn_id, kv_shard_set participants, size_t count);
void kv_put_op(struct kv_buf *buf, const struct kv_op *op);
enum kv_err kv_get_prepare(struct kv_slice body, struct kv_msg_prepare *out);
/* For a look ahead: its operations, none of them checked yet. One that is malformed ends the walk. */
enum kv_err kv_peek_prepare_ops(struct kv_slice body, struct kv_list *ops);
bool kv_next_op(struct kv_list *ops, struct kv_op *out);

void kv_put_vote_begin(struct kv_buf *buf, enum kv_err err, size_t count); /* then kv_pack_bool */
enum kv_err kv_get_vote(struct kv_slice body, enum kv_err *err, struct kv_list *existed);

void kv_put_report_begin(struct kv_buf *buf, size_t intent_count); /* then kv_put_report_intent */
void kv_put_report_intent(struct kv_buf *buf, uint64_t txn_id, kv_shard_set participants);
void kv_put_report_done(struct kv_buf *buf, size_t done_count); /* then kv_pack_uint */
enum kv_err kv_get_report(struct kv_slice body, struct kv_list *intents, struct kv_list *done);
bool kv_next_report_intent(struct kv_list *intents, uint64_t *txn_id, kv_shard_set *participants);

struct kv_msg_stage {
    struct kv_hash hash;
    uint64_t size;
    enum kv_codec codec;
    uint64_t stored_bytes;
};
void kv_put_stage(struct kv_buf *buf, const struct kv_msg_stage *stage);
enum kv_err kv_get_stage(struct kv_slice body, struct kv_msg_stage *out);

struct kv_msg_staged {
    enum kv_err err;
    uint64_t object_id;
    bool existed;
};
void kv_put_staged(struct kv_buf *buf, const struct kv_msg_staged *staged);
enum kv_err kv_get_staged(struct kv_slice body, struct kv_msg_staged *out);

struct kv_msg_stage_data {
    uint64_t object_id;
    uint64_t offset; /* pieces arrive in order, without gaps */
    struct kv_slice bytes;
};
void kv_put_stage_data(struct kv_buf *buf, const struct kv_msg_stage_data *data);
enum kv_err kv_get_stage_data(struct kv_slice body, struct kv_msg_stage_data *out);

/* The piece is `bytes`, and behind them bytes of the file whose descriptor comes along with the frame (SCM_RIGHTS, one for
 * each frame of this type, in their order). */
struct kv_msg_stage_file {
    uint64_t object_id;
    uint64_t offset; /* as above */
    struct kv_slice bytes;
    uint64_t file_offset;
    uint64_t file_bytes; /* 1 to KV_FILE_PIECE_BYTES_MAX */
};
void kv_put_stage_file(struct kv_buf *buf, const struct kv_msg_stage_file *piece);
enum kv_err kv_get_stage_file(struct kv_slice body, struct kv_msg_stage_file *out);

void kv_put_counters_begin(struct kv_buf *buf, size_t count); /* then kv_put_counter */
void kv_put_counter(struct kv_buf *buf, const char *name, uint64_t value);
enum kv_err kv_get_counters(struct kv_slice body, struct kv_list *pairs);
bool kv_next_counter(struct kv_list *pairs, struct kv_slice *name, uint64_t *value);

#endif
