/* include/kv/msg.h -- every sentence our processes can say to each other.
 * A frame is a fixed header (shard/wire/frame.h) and a body: one MessagePack array.
 * Bodies are encoded and decoded only in shard/wire/ (messages.h). Every request but the ones marked "-" is
 * answered by exactly one frame of the named type with the same request id. All requests are idempotent: after a
 * broken link the router sends the unanswered ones again. OPENs and FETCHes are handled in the order they come in: a slot that is
 * named twice holds the later bytes once those are answered.
 * Changing a row means a new KV_WIRE_VERSION; peers compare it in HELLO. */
#ifndef KV_MSG_H
#define KV_MSG_H

#include <stdint.h>

#define KV_WIRE_VERSION 6u

/* row    = nil | [hash, size, created_s, txn_id, content_type]
 * object = nil | [size, stored_bytes, codec, object_id, refs, held, bytes]
 * op     = [SET, key, expect_txn, row] | [CLEAR, key, expect_txn] | [CHECK, key, expect_txn]
 *        | [ADD, hash, count, size, codec, object_id, stored_bytes, bytes | nil] | [DROP, hash, count] */
#define KV_MSG_TABLE(X) /* name  id  from    to      answer    body, a msgpack array */                                \
    X(HELLO, 1, ANY, ANY, HELLO, "version, role, shard_index, shard_count, epoch, thread_index")                       \
    X(READ, 10, ROUTER, SHARD, ROW, "key, bytes_max")                                                                  \
    X(ROW, 11, SHARD, ROUTER, -, "err, row, object if the content lives here")                                         \
    X(OPEN, 12, ROUTER, SHARD, OBJECT, "hash, bytes_max, slot of the arena | nil")                                     \
    X(OBJECT, 13, SHARD, ROUTER, -, "err, object, bytes in the slot; held until CLOSE when some are missing")          \
    X(FETCH, 14, ROUTER, SHARD, PIECE, "object_id, offset, bytes_max, slot of the arena | nil")                        \
    X(PIECE, 15, SHARD, ROUTER, -, "err, bytes | how many of them are in the slot")                                    \
    X(CLOSE, 16, ROUTER, SHARD, -, "object_id")                                                                        \
    X(REFS, 17, ROUTER, SHARD, COUNTS, "hashes")                                                                       \
    X(COUNTS, 18, SHARD, ROUTER, -, "err, reference counts in the order asked")                                        \
    X(LIST, 19, ROUTER, SHARD, PAGE, "after, inclusive, prefix, delimiter, limit")                                     \
    X(PAGE, 20, SHARD, ROUTER, -, "err, more, keys, resume, entries of [key, row | nil for a shared prefix]")          \
    X(ARENA, 21, ROUTER, SHARD, -,                                                                                     \
      "; a descriptor comes along: memory that this link's OPENs and FETCHes name slots of")                           \
    X(LOCK, 30, ROUTER, SHARD, LOCKED, "txn_id, keys ascending")                                                       \
    X(LOCKED, 31, SHARD, ROUTER, -, "err, rows in the order of the keys")                                              \
    X(PREPARE, 32, ROUTER, SHARD, VOTE, "txn_id, participants, ops")                                                   \
    X(APPLY, 33, ROUTER, SHARD, VOTE, "txn_id, participants (itself), ops")                                            \
    X(VOTE, 34, SHARD, ROUTER, -, "err, for each ADD in order: was the content here")                                  \
    X(COMMIT, 35, ROUTER, SHARD, DONE, "txn_id")                                                                       \
    X(ABORT, 36, ROUTER, SHARD, DONE, "txn_id")                                                                        \
    X(RELEASE, 37, ROUTER, SHARD, DONE, "txn_id; KV_CONFLICT when its locks were lost meanwhile")                      \
    X(DONE, 38, SHARD, ROUTER, -, "err")                                                                               \
    X(FORGET, 39, ROUTER, SHARD, DONE, "from_txn_id, below_txn_id, open: all between but these have ended everywhere") \
    X(RECOVER, 40, ROUTER, SHARD, REPORT, "")                                                                          \
    X(REPORT, 41, SHARD, ROUTER, -, "intents of [txn_id, participants], done txn_ids")                                 \
    X(STAGE, 50, ROUTER, SHARD, STAGED, "hash, size, codec, stored_bytes")                                             \
    X(STAGED, 51, SHARD, ROUTER, -, "err, object_id, existed (then nothing need be sent)")                             \
    X(STAGE_DATA, 52, ROUTER, SHARD, DONE, "object_id, offset, bytes; DONE when durable")                              \
    X(STAGE_DROP, 53, ROUTER, SHARD, -, "object_id")                                                                   \
    X(STAGE_FILE, 54, ROUTER, SHARD, DONE,                                                                             \
      "object_id, offset, bytes, file_offset, file_bytes; a descriptor comes along")                                   \
    X(STATS, 60, ROUTER, SHARD, COUNTERS, "")                                                                          \
    X(COUNTERS, 61, SHARD, ROUTER, -, "pairs of [name, value]")

enum kv_role { KV_ROLE_ANY, KV_ROLE_ROUTER, KV_ROLE_SHARD };

enum kv_msg {
#define X(name, id, from, to, answer, body) KV_MSG_##name = id,
    KV_MSG_TABLE(X)
#undef X
};

/* The name in capitals, for logs and traces; "?" for an unknown number. */
const char *kv_msg_name(uint32_t type);
/* Whether a frame of this type may come from that role. False for unknown numbers. */
int kv_msg_from(uint32_t type, enum kv_role role);
/* The type of the answer to a request; 0 for a message without one and for an unknown number. */
uint32_t kv_msg_answer(uint32_t type);

#endif
