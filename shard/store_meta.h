/* shard/store_meta.h -- the rows of the table `meta`: whose files these are, and how far they are.
 *   "identity": format version u64 | shard index u64 | shard count u64 | store id 32     written once, the version changed later
 *   "meta":     position u64 | object_id_next u64 | keys u64 | objects u64 | stored_bytes u64 | node_id_next u64
 *   "intents":  opaque bytes of core.c                                                   (integers little endian)
 *   "redo":     position u64 of the generation that is half applied, and that the file `redo` has whole (store_redo.h); else none
 * Fails:    KV_INVALID with a sentence (made by another shard, count, store or format), KV_CORRUPT for other lengths.
 * Tests:    unit/shard/test_store.c. */
#ifndef KV_SHARD_STORE_META_H
#define KV_SHARD_STORE_META_H

#include "store_internal.h"

/* A new store: its identity and zeros. */
enum kv_err store_meta_create(struct store_txn *txn, const struct store_identity *identity);
enum kv_err store_meta_check(struct store_txn *txn, const struct store_identity *identity, char *why, size_t why_bytes);
/* out->intents is a peek into the transaction. `node_id_next` belongs to longkey.h. */
enum kv_err store_meta_get(struct store_txn *txn, struct store_meta *out, uint64_t *node_id_next);
/* With the last rows of a generation. Also makes the files those of STORE_FORMAT_VERSION: it comes with the first rows of that
 * format. Nothing is half applied from then on. */
enum kv_err store_meta_put(struct store_txn *txn, const struct store_meta *meta, uint64_t node_id_next);
/* With any rows before the last of the generation that ends at `position`. */
enum kv_err store_meta_put_half(struct store_txn *txn, uint64_t position, uint64_t node_id_next);
/* The position of the generation that is half applied, or 0. */
enum kv_err store_meta_half(struct store_txn *txn, uint64_t *position);

#endif
