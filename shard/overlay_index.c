/* shard/overlay_index.c -- see overlay_index.h. Linear probing; a removal moves the followers up instead of leaving a mark, so a
 * search never passes what is gone. Of a hash, the lowest bits pick the part, the next ones the home in it, the highest the tag. */
#include "overlay_index.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>
#include <xxhash.h>

#include "kv/clock.h"
#include "kv/log.h"

#define SLOTS_MIN 8u
#define ROWS_AHEAD 8u /* fetched while the slots are walked: their rows lie anywhere */

static uint64_t seed;
static pthread_once_t seeded = PTHREAD_ONCE_INIT;

static void make_seed(void)
{
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        seed = kv_clock_ns();
}

uint64_t overlay_hash(struct kv_slice key)
{
    pthread_once(&seeded, make_seed);
    return XXH3_64bits_withSeed(key.data, key.bytes, seed);
}

static struct overlay_part *part_of(const struct overlay_index *index, uint64_t hash)
{
    return (struct overlay_part *)(uintptr_t)&index->parts[hash % OVERLAY_PARTS];
}

static uint8_t *tags_of(const struct overlay_part *part)
{
    return (uint8_t *)(part->slots + part->slot_count);
}

static uint8_t tag_of(uint64_t hash)
{
    return (uint8_t)(hash >> 57 | 0x80);
}

static size_t home_of(const struct overlay_part *part, uint64_t hash)
{
    return hash / OVERLAY_PARTS & (part->slot_count - 1);
}

static size_t next_of(const struct overlay_part *part, size_t at)
{
    return (at + 1) & (part->slot_count - 1);
}

struct overlay_row *overlay_index_get(const struct overlay_index *index, uint64_t hash, struct kv_slice key)
{
    const struct overlay_part *part = part_of(index, hash);
    if (part->count == 0)
        return NULL;
    const uint8_t *tags = tags_of(part), tag = tag_of(hash);
    for (size_t at = home_of(part, hash); tags[at] != 0; at = next_of(part, at)) {
        if (tags[at] == tag && kv_slice_equal(overlay_key(part->slots[at]), key))
            return part->slots[at];
    }
    return NULL;
}

void overlay_index_fetch(const struct overlay_index *index, uint64_t hash)
{
    const struct overlay_part *part = part_of(index, hash);
    if (part->count == 0)
        return;
    __builtin_prefetch(&tags_of(part)[home_of(part, hash)]);
    __builtin_prefetch(&part->slots[home_of(part, hash)]);
}

const struct overlay_row *overlay_index_guess(const struct overlay_index *index, uint64_t hash)
{
    const struct overlay_part *part = part_of(index, hash);
    if (part->count == 0)
        return NULL;
    const uint8_t *tags = tags_of(part), tag = tag_of(hash);
    size_t at = home_of(part, hash);
    while (tags[at] != 0 && tags[at] != tag)
        at = next_of(part, at);
    return tags[at] == 0 ? NULL : part->slots[at];
}

static void place(struct overlay_part *part, uint64_t hash, struct overlay_row *row)
{
    uint8_t *tags = tags_of(part);
    size_t at = home_of(part, hash);
    while (tags[at] != 0)
        at = next_of(part, at);
    tags[at] = tag_of(hash);
    part->slots[at] = row;
}

static void grow(struct overlay_part *part)
{
    struct overlay_part larger = {.slot_count = part->slot_count == 0 ? SLOTS_MIN : part->slot_count * 2,
                                  .count = part->count};
    larger.slots = kv_alloc(larger.slot_count * (sizeof *larger.slots + 1));
    memset(tags_of(&larger), 0, larger.slot_count);
    const uint8_t *tags = tags_of(part);
    for (size_t i = 0; i < part->slot_count; i++) {
        if (i + ROWS_AHEAD < part->slot_count && tags[i + ROWS_AHEAD] != 0)
            __builtin_prefetch(part->slots[i + ROWS_AHEAD]);
        if (tags[i] != 0)
            place(&larger, overlay_hash(overlay_key(part->slots[i])), part->slots[i]);
    }
    free(part->slots);
    *part = larger;
}

void overlay_index_add(struct overlay_index *index, uint64_t hash, struct overlay_row *row)
{
    struct overlay_part *part = part_of(index, hash);
    if (4 * part->count >= 3 * part->slot_count) {
        index->slot_count -= part->slot_count;
        grow(part);
        index->slot_count += part->slot_count;
    }
    place(part, hash, row);
    part->count++;
    index->count++;
}

static size_t slot_of(const struct overlay_part *part, uint64_t hash, const struct overlay_row *row)
{
    kv_assert(part->count > 0);
    const uint8_t *tags = tags_of(part);
    size_t at = home_of(part, hash);
    for (; tags[at] != 0 && part->slots[at] != row;)
        at = next_of(part, at);
    kv_assert(tags[at] != 0);
    return at;
}

void overlay_index_replace(struct overlay_index *index, uint64_t hash, const struct overlay_row *row,
                           struct overlay_row *by)
{
    struct overlay_part *part = part_of(index, hash);
    part->slots[slot_of(part, hash, row)] = by;
}

/* A follower may move into the gap at `gap` when its home is not behind the gap on the way from its home to `at`. */
static bool may_move(const struct overlay_part *part, size_t gap, size_t at)
{
    size_t home = home_of(part, overlay_hash(overlay_key(part->slots[at]))), mask = part->slot_count - 1;
    return ((at - home) & mask) >= ((at - gap) & mask);
}

void overlay_index_remove(struct overlay_index *index, uint64_t hash, const struct overlay_row *row)
{
    struct overlay_part *part = part_of(index, hash);
    uint8_t *tags = tags_of(part);
    size_t gap = slot_of(part, hash, row);
    for (size_t at = next_of(part, gap); tags[at] != 0; at = next_of(part, at)) {
        if (!may_move(part, gap, at))
            continue;
        tags[gap] = tags[at];
        part->slots[gap] = part->slots[at];
        gap = at;
    }
    tags[gap] = 0;
    part->count--;
    index->count--;
}

void overlay_index_list(const struct overlay_index *index, const struct overlay_row **rows)
{
    size_t found = 0;
    for (const struct overlay_part *part = index->parts; part < index->parts + OVERLAY_PARTS; part++) {
        const uint8_t *tags = tags_of(part);
        for (size_t i = 0; i < part->slot_count; i++)
            if (tags[i] != 0)
                rows[found++] = part->slots[i];
    }
    kv_assert(found == index->count);
}

void overlay_index_free(struct overlay_index *index)
{
    for (struct overlay_part *part = index->parts; part < index->parts + OVERLAY_PARTS; part++)
        free(part->slots);
    *index = (struct overlay_index){0};
}
