/* include/kv/limits.h -- every fixed limit, with its unit and what happens at the brim.
 * Limits that a user may set live in the settings table (kv/settings.h). */
#ifndef KV_LIMITS_H
#define KV_LIMITS_H

#define KV_KEY_BYTES_MAX 4096u          /* 414 key_too_long */
#define KV_CONTENT_TYPE_BYTES_MAX 1024u /* 400 invalid_request */
#define KV_BATCH_OPS_MAX 10000u         /* 413 too_large */
#define KV_TXN_OPS_MAX 30000u           /* of a batch at a shard, three for each key; more closes the link */
#define KV_LIST_LIMIT_MAX 1000u         /* 400 invalid_request */
#define KV_SHARDS_MAX 16u               /* refused at start; participants fit a 64-bit set */
#define KV_ROUTER_THREADS_MAX 64u       /* refused at start */
#define KV_SLOT_COUNT 4096u             /* slots of the key space, spread evenly over the shards */
#define KV_HASH_BYTES 32u               /* SHA-256 */
#define KV_STORE_ID_BYTES 32u           /* hex digits that tell stores apart */

#define KV_INLINE_BYTES_MAX 65536u     /* stored form up to this travels inside the write; above it is staged */
#define KV_CONTENT_FRAME_BYTES 262144u /* content bytes per independent zstd frame */
#define KV_PIECE_BYTES_MAX 1048576u    /* stored bytes in one ROW, OBJECT, PIECE or STAGE_DATA message */
#ifndef KV_ARENA_UNITS                 /* the simulation lowers it */
#define KV_ARENA_UNITS 256u            /* of one link, 4 MiB: bytes that find no room there travel inside messages */
#endif
#define KV_ARENA_UNIT_BYTES 16384u
#define KV_ARENA_BYTES ((size_t)KV_ARENA_UNITS * KV_ARENA_UNIT_BYTES)
/* A frame and an index; more travels inside messages, too. */
#define KV_SLOT_BYTES_MAX (KV_CONTENT_FRAME_BYTES + KV_ARENA_UNIT_BYTES)
/* Of a file in one STAGE_FILE message: 1,040 rows, a value of 4 MiB with its index. The simulation lowers it. */
#ifndef KV_FILE_PIECE_BYTES_MAX
#define KV_FILE_PIECE_BYTES_MAX 4243200u
#endif
#define KV_BLOB_ROW_BYTES 4080u /* one LMDB page exactly (shard/blobs.h) */

/* 128 MiB: a batch of 64 MiB with its overhead; a larger frame closes the link. */
#define KV_FRAME_BODY_BYTES_MAX 134217728u
#define KV_STORED_BYTES_MAX ((uint64_t)1 << 40) /* 1 TiB: keeps sums from overflowing; users never meet it */
#define KV_EPOCH_MAX 1048575u                   /* 20 bits: starts of a router over the life of a store */
#define KV_TXN_SEQUENCE_BITS 44                 /* transactions of one epoch: five years at 100,000 a second */

#endif
