/* Goal: the place of a key never changes, since files depend on it. Method: vectors computed once with the xxHash
 * library 0.8.1 and frozen; lengths meet every branch of XXH3 (0, 1-3, 4-8, 17-128, 129-240, above). */
#include <criterion/criterion.h>

#include "kv/limits.h"
#include "kv/placement.h"

struct vector {
    const char *text; /* NULL: the bytes i % 251 */
    size_t bytes;
    unsigned slot, shard_of_2, shard_of_3, shard_of_4, shard_of_16;
};

static const struct vector vectors[] = {
    {"", 0, 1218, 0, 0, 1, 4},
    {"a", 1, 3615, 1, 2, 3, 14},
    {"key", 3, 1507, 0, 1, 1, 5},
    {"usr/share/doc/zlib1g/copyright", 30, 2452, 1, 1, 2, 9},
    {"line\nfeed", 9, 2964, 1, 2, 2, 11},
    {"\xf0\x9f\x98\x80", 4, 142, 0, 0, 0, 0},
    {"\0", 1, 3291, 1, 2, 3, 12},
    {NULL, 32, 3077, 1, 2, 3, 12},
    {NULL, 240, 2149, 1, 1, 2, 8},
    {NULL, 241, 3330, 1, 2, 3, 13},
    {NULL, 4096, 3185, 1, 2, 3, 12},
};

Test(placement, golden_vectors)
{
    uint8_t pattern[4096];
    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = (uint8_t)(i % 251);
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        const struct vector *v = &vectors[i];
        struct kv_slice bytes = kv_slice(v->text == NULL ? (const void *)pattern : v->text, v->bytes);
        cr_expect_eq(kv_slot_of(bytes), v->slot, "vector %zu: slot %u", i, kv_slot_of(bytes));
        cr_expect_eq(kv_shard_of(bytes, 1), 0u, "vector %zu", i);
        cr_expect_eq(kv_shard_of(bytes, 2), v->shard_of_2, "vector %zu", i);
        cr_expect_eq(kv_shard_of(bytes, 3), v->shard_of_3, "vector %zu", i);
        cr_expect_eq(kv_shard_of(bytes, 4), v->shard_of_4, "vector %zu", i);
        cr_expect_eq(kv_shard_of(bytes, 16), v->shard_of_16, "vector %zu", i);
    }
    cr_expect_eq(kv_slot_of(kv_slice(NULL, 0)), 1218u);
}

/* Every count of shards gets every shard, and none more than twice its share of 16,000 keys. */
Test(placement, spreads_evenly)
{
    for (unsigned shard_count = 1; shard_count <= KV_SHARDS_MAX; shard_count++) {
        unsigned keys[KV_SHARDS_MAX] = {0};
        for (unsigned i = 0; i < 16000; i++) {
            unsigned shard = kv_shard_of(kv_slice(&i, sizeof(i)), shard_count);
            cr_assert_lt(shard, shard_count);
            keys[shard]++;
        }
        for (unsigned shard = 0; shard < shard_count; shard++) {
            cr_expect_gt(keys[shard], 16000 / shard_count / 2, "shard %u of %u", shard, shard_count);
            cr_expect_lt(keys[shard], 16000 / shard_count * 2 + 1, "shard %u of %u", shard, shard_count);
        }
    }
}
