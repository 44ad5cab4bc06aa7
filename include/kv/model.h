/* include/kv/model.h -- the nouns that travel between router and shards: row, object, operation.
 * Slices in them borrow from the message or buffer they were decoded from. */
#ifndef KV_MODEL_H
#define KV_MODEL_H

#include "kv/limits.h"
#include "kv/slice.h"

struct kv_hash {
    uint8_t bytes[KV_HASH_BYTES]; /* SHA-256 of the content, uncompressed */
};

static inline struct kv_slice kv_hash_slice(const struct kv_hash *hash)
{
    return kv_slice(hash->bytes, KV_HASH_BYTES);
}

static inline bool kv_hash_equal(const struct kv_hash *a, const struct kv_hash *b)
{
    return memcmp(a->bytes, b->bytes, KV_HASH_BYTES) == 0;
}

/* What a key holds now. txn_id is the transaction that wrote it: it is the row's version, never 0. */
struct kv_row {
    struct kv_hash hash;
    uint64_t size;      /* content bytes */
    uint64_t created_s; /* Unix seconds of the last write */
    uint64_t txn_id;
    struct kv_slice content_type;
};

/* How the stored form of a content was made (router/codec.h): opaque to shards. */
enum kv_codec { KV_CODEC_RAW = 0, KV_CODEC_ZSTD = 1, KV_CODEC_MIXED = 2 };

/* A content as its shard knows it. `refs` counts votes already given (see shard/core.h). */
struct kv_object {
    uint64_t size;         /* content bytes */
    uint64_t stored_bytes; /* bytes of the stored form */
    enum kv_codec codec;
    uint64_t object_id; /* of its stored bytes; 0: they are few, and lie in the content's row */
    uint64_t refs;
    bool held;             /* the shard keeps the stored bytes until CLOSE or the link ends */
    struct kv_slice bytes; /* the first of the stored bytes, up to what was asked */
};

enum kv_op_kind { KV_OP_SET = 1, KV_OP_CLEAR = 2, KV_OP_CHECK = 3, KV_OP_ADD = 4, KV_OP_DROP = 5 };

/* One of the things that a transaction does at a shard: to a key, or to a content. */
struct kv_op {
    enum kv_op_kind kind;
    union {
        struct {                 /* SET, CLEAR, CHECK */
            struct kv_slice key; /* never empty */
            uint64_t expect_txn; /* version that the row must have; 0 = absent */
            struct kv_row row;   /* SET; its txn_id is ignored: the transaction's own is written */
        };
        struct { /* ADD, DROP */
            struct kv_hash hash;
            uint64_t count;        /* references, at least 1 */
            uint64_t size;         /* from here on ADD: content bytes */
            uint64_t object_id;    /* staged content to adopt; 0 = `bytes`, or what the shard holds already */
            uint64_t stored_bytes; /* of the stored form, wherever it is */
            enum kv_codec codec;
            bool has_bytes; /* `bytes` is the complete stored form */
            struct kv_slice bytes;
        };
    };
};

static inline bool kv_op_is_on_key(const struct kv_op *op)
{
    return op->kind == KV_OP_SET || op->kind == KV_OP_CLEAR || op->kind == KV_OP_CHECK;
}

/* A set of shards, bit i = shard i. */
typedef uint64_t kv_shard_set;

static inline kv_shard_set kv_shard_bit(unsigned shard_index)
{
    return (kv_shard_set)1 << shard_index;
}

/* Transaction ids only grow: epoch of the router in the high bits. */
static inline uint64_t kv_txn_id(uint64_t epoch, uint64_t sequence)
{
    return epoch << KV_TXN_SEQUENCE_BITS | sequence;
}

static inline uint64_t kv_txn_epoch(uint64_t txn_id)
{
    return txn_id >> KV_TXN_SEQUENCE_BITS;
}

#endif
