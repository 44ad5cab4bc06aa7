/* shard/store_redo.h -- the file `redo`: a large generation, whole, while it goes into LMDB in pieces (store_apply.c).
 * Why:      LMDB keeps each page that a transaction changes in memory until it commits, and among millions of keys every row is a page of
 *           its own: 131,000 rows took 585 MB. In pieces they take little; but replay from the old position over half of a
 *           generation would count references twice. So the rows, which are final ones, are on the disk before the first piece, and
 *           whoever finds LMDB half changed puts them over it, any number of times: the journal behind them is not needed any more.
 * Form:     magic u64 | store id 32 | shard index u64 | position u64 | object_id_next u64 | keys u64 | objects u64 | stored_bytes u64 |
 *           bytes of intents u64 | rows u64 | intents | rows | XXH3-64 of all that u64    (integers little endian)
 *           row: bytes of value u32 | bytes of key u16 | table u8 | tombstone u8 | key | value
 * Promises: on the disk, name and all, when redo_write returns KV_OK. It counts only while LMDB's meta says "half applied, redo has
 *           the rest" (store_meta.h): until then it may be half written, from then on it is not touched.
 * Fails:    KV_NO_SPACE, KV_IO. KV_CORRUPT with a sentence: it is not there, damaged, or another generation's.
 * Tests:    unit/shard/test_store_redo.c. */
#ifndef KV_SHARD_STORE_REDO_H
#define KV_SHARD_STORE_REDO_H

#include "store.h"

enum kv_err redo_write(const char *path, const struct store_identity *identity, const struct overlay *generation,
                       const struct store_meta *meta);
/* The generation up to `position`. */
enum kv_err redo_read(const char *path, const struct store_identity *identity, uint64_t position, char *why,
                      size_t why_bytes, struct store_redo *out);
/* There may be none. */
void redo_remove(const char *path);

/* What redo_read makes of the file's bytes, behind its checksum. KV_CORRUPT: they are not a whole file of ours. */
enum kv_err redo_decode(struct kv_slice file, const struct store_identity *identity, struct store_redo *out);

#endif
