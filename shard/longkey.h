/* shard/longkey.h -- keys of 1 to 4,096 bytes in exact byte order, over LMDB keys of at most 511.
 * Scheme:   the table `keys` holds keys of up to 510 bytes as they are. A longer key has a record `first 510 bytes || 0x01` there
 *           (511 bytes; no other record has this length) whose value is a node id; its rest stands in `tails` under
 *           `node id, 8 bytes BE || rest`. A rest of more than 502 bytes continues in the same way: `node id || 502 bytes || 0x01`
 *           -> next node id. All keys that share their first 510 bytes share one node, and so on: a tree of at most
 *           LONGKEY_LEVELS levels.
 * Promises: a key that ends sorts before one that continues, so a depth-first walk gives the keys in byte order; seek
 *           is exact for any `from`. Deleting the last key below a node deletes the record that led there, all the way up.
 * Owns:     the tables keys and tails, inside the caller's transaction. Node ids only grow; the caller persists the counter.
 * Fails:    KV_NOT_FOUND, KV_CORRUPT (a node without rows, a key too deep), or what the transaction said.
 * Tests:    unit/shard/test_longkey.c (against a sorted array). */
#ifndef KV_SHARD_LONGKEY_H
#define KV_SHARD_LONGKEY_H

#include "kv/err.h"
#include "kv/limits.h"
#include "kv/slice.h"

#define LONGKEY_HEAD_BYTES 510u /* of a key in `keys` */
#define LONGKEY_PART_BYTES 502u /* of a key in one row of `tails` */
#define LONGKEY_LEVELS 9u       /* 510 + 8 * 502 >= 4,096 */

struct store_txn;

/* Where a walk stands: the key it gave last and the nodes on the way to it. Peeks only; nothing to free. */
struct longkey_walk {
    bool valid;
    unsigned depth;
    uint64_t nodes[LONGKEY_LEVELS]; /* nodes[0] is the table `keys` itself */
    uint8_t key[KV_KEY_BYTES_MAX];
    size_t key_bytes;
    uint64_t records; /* records of both tables met since longkey_seek, for store_check */
};

enum kv_err longkey_get(struct store_txn *txn, struct kv_slice key, struct kv_slice *row);
/* `node_id_next` is used up as nodes are made. */
enum kv_err longkey_put(struct store_txn *txn, struct kv_slice key, struct kv_slice row, uint64_t *node_id_next);
enum kv_err longkey_delete(struct store_txn *txn, struct kv_slice key);
/* The first key >= `from`: walk->key, and a peek of its row. */
enum kv_err longkey_seek(struct store_txn *txn, struct longkey_walk *walk, struct kv_slice from, struct kv_slice *row);
/* The key behind it. KV_NOT_FOUND at the end, and again when asked again. */
enum kv_err longkey_next(struct store_txn *txn, struct longkey_walk *walk, struct kv_slice *row);

#endif
