/* shard/overlay_index.c -- see overlay_index.h. Linear probing; a removal moves the followers up instead of leaving a mark, so a
 * search never passes what is gone. */
#include "overlay_index.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>
#include <xxhash.h>

#include "kv/clock.h"
#include "kv/log.h"

#define SLOTS_MIN 64u

static uint64_t seed;
static pthread_once_t seeded = PTHREAD_ONCE_INIT;

static void make_seed(void)
{
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        seed = kv_clock_ns();
}

uint64_t overlay_index_hash(unsigned table, struct kv_slice key)
{
    pthread_once(&seeded, make_seed);
    uint64_t hash = XXH3_64bits_withSeed(key.data, key.bytes, seed + table);
    return (hash & ~((uint64_t)3 << 55)) | (uint64_t)table
                                               << 55; /* between what picks the home and what makes the tag */
}

/* The upper bits: the lower ones pick the home. */
static uint8_t tag_of(uint64_t hash)
{
    return (uint8_t)(hash >> 57 | 0x80);
}

static size_t home_of(const struct overlay_index *index, uint64_t hash)
{
    return hash & (index->slot_count - 1);
}

static size_t next_of(const struct overlay_index *index, size_t at)
{
    return (at + 1) & (index->slot_count - 1);
}

void *overlay_index_get(const struct overlay_index *index, uint64_t hash,
                        bool (*is_wanted)(const void *wanted, const void *entry), const void *wanted)
{
    if (index->count == 0)
        return NULL;
    uint8_t tag = tag_of(hash);
    for (size_t at = home_of(index, hash); index->tags[at] != 0; at = next_of(index, at)) {
        const struct overlay_slot *slot = &index->slots[at];
        if (index->tags[at] == tag && slot->hash == hash && is_wanted(wanted, slot->entry))
            return slot->entry;
    }
    return NULL;
}

static void place(struct overlay_index *index, struct overlay_slot slot)
{
    size_t at = home_of(index, slot.hash);
    while (index->tags[at] != 0)
        at = next_of(index, at);
    index->tags[at] = tag_of(slot.hash);
    index->slots[at] = slot;
}

static void grow(struct overlay_index *index)
{
    struct overlay_index larger = {.slot_count = index->slot_count == 0 ? SLOTS_MIN : index->slot_count * 2,
                                   .count = index->count};
    larger.tags = kv_alloc_zero(larger.slot_count, sizeof *larger.tags);
    larger.slots = kv_alloc(larger.slot_count * sizeof *larger.slots);
    for (size_t i = 0; i < index->slot_count; i++) {
        if (index->tags[i] != 0)
            place(&larger, index->slots[i]);
    }
    overlay_index_free(index);
    *index = larger;
}

void overlay_index_add(struct overlay_index *index, uint64_t hash, void *entry)
{
    if (2 * index->count >= index->slot_count)
        grow(index);
    place(index, (struct overlay_slot){hash, entry});
    index->count++;
}

/* A follower may move into the gap at `gap` when its home is not behind the gap on the way from its home to `at`. */
static bool may_move(const struct overlay_index *index, size_t gap, size_t at)
{
    size_t home = home_of(index, index->slots[at].hash), mask = index->slot_count - 1;
    return ((at - home) & mask) >= ((at - gap) & mask);
}

void overlay_index_remove(struct overlay_index *index, uint64_t hash, const void *entry)
{
    kv_assert(index->count > 0);
    size_t gap = home_of(index, hash);
    kv_assert(index->tags[gap] != 0);
    while (index->slots[gap].entry != entry) {
        gap = next_of(index, gap);
        kv_assert(index->tags[gap] != 0);
    }
    for (size_t at = next_of(index, gap); index->tags[at] != 0; at = next_of(index, at)) {
        if (!may_move(index, gap, at))
            continue;
        index->tags[gap] = index->tags[at];
        index->slots[gap] = index->slots[at];
        gap = at;
    }
    index->tags[gap] = 0;
    index->count--;
}

void overlay_index_free(struct overlay_index *index)
{
    free(index->tags);
    free(index->slots);
    *index = (struct overlay_index){0};
}
