/* include/kv/placement.h -- which shard owns a key or a content hash.
 * slot = XXH3-64 (seed 0) of the bytes, modulo KV_SLOT_COUNT; shard = slot * shard_count / KV_SLOT_COUNT.
 * The mapping is part of the file format: changing it needs a new format version.
 * Implementation: supervisor/base/placement.c. Tests: unit/base/test_placement.c (golden vectors). */
#ifndef KV_PLACEMENT_H
#define KV_PLACEMENT_H

#include "kv/slice.h"

unsigned kv_slot_of(struct kv_slice bytes);
/* `shard_count` 1 to KV_SHARDS_MAX. Keys and hashes (32 raw bytes) alike. */
unsigned kv_shard_of(struct kv_slice bytes, unsigned shard_count);

#endif
