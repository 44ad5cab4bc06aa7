/* supervisor/base/placement.c -- bytes to slot to shard. Part of the file format: see include/kv/placement.h.
 * Promises: the same answer on every machine and in every version that reads format 1.
 * Tests:    unit/base/test_placement.c, with frozen vectors. */
#include <xxhash.h>

#include "kv/limits.h"
#include "kv/log.h"
#include "kv/placement.h"

unsigned kv_slot_of(struct kv_slice bytes)
{
    static const uint8_t nothing[1];
    const void *data = bytes.bytes == 0 ? nothing : bytes.data; /* the library's word on NULL differs by version */
    return (unsigned)(XXH3_64bits(data, bytes.bytes) % KV_SLOT_COUNT);
}

unsigned kv_shard_of(struct kv_slice bytes, unsigned shard_count)
{
    kv_assert(shard_count >= 1 && shard_count <= KV_SHARDS_MAX);
    return kv_slot_of(bytes) * shard_count / KV_SLOT_COUNT;
}
