/* router/cache.c -- see cache.h.
 * The ring is a row of blocks, oldest first from `tail` to `head`: entries, entries that were dropped, and padding at its end or before
 * an entry that could not be moved out of the way. A block is dropped by forgetting its place in the table; its memory comes
 * back when the tail passes. places.h finds entries. What a look-up needs lies far apart in memory: all of it is
 * asked for as soon as its address is known, and before it is needed where others come along (gets.h). */
#include "cache.h"

#include <stdlib.h>

#include "cache_entry.h"
#include "huge.h"
#include "kv/log.h"
#include "places.h"

#define LINE_BYTES 64u
#define CACHE_SWEEP_BYTES_MIN 262144u
#define KEY_BYTES_LIKELY 64u
#define AHEAD_BYTES_MAX 4096u /* of a content: the rest, the processor guesses */

struct cache {
    struct marks *marks;
    struct places places;
    uint8_t *ring;
    uint64_t ring_bytes;
    uint64_t head, tail;             /* offsets that only grow: the place in the ring is the remainder */
    uint64_t round_end, round_share; /* of cache_sweep: how far it goes, and how far with each call */
};

/* ---- memory ------------------------------------------------------------------------------------------------------- */

_Static_assert(sizeof(struct cache_inside) <= ENTRY_UNIT, "padding has the head of a block");

struct cache *cache_new(uint64_t bytes_max, struct marks *marks)
{
    if (marks == NULL)
        return NULL;
    struct cache *cache = kv_alloc_zero(1, sizeof *cache);
    cache->marks = marks;
    cache->ring_bytes = bytes_max / ENTRY_UNIT * ENTRY_UNIT;
    cache->ring = cache->ring_bytes == 0 ? NULL : huge_map(cache->ring_bytes);
    if (cache->ring == NULL) {
        if (cache->ring_bytes > 0)
            kv_warn("no memory for a cache of %llu bytes: every GET asks the shards", (unsigned long long)bytes_max);
        free(cache);
        return NULL;
    }
    places_init(&cache->places);
    return cache;
}

void cache_free(struct cache **cache)
{
    if (*cache == NULL)
        return;
    huge_unmap((*cache)->ring, (*cache)->ring_bytes);
    places_free(&(*cache)->places);
    free(*cache);
    *cache = NULL;
}

static struct cache_entry *block_at(const struct cache *cache, uint64_t offset)
{
    return (struct cache_entry *)(void *)(cache->ring + offset % cache->ring_bytes);
}

/* ---- entries ---------------------------------------------------------------------------------------------------- */

/* It will be needed: the entry at once, its content when h2o writes, many requests later. */
static void fetch_ahead(const void *memory, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += LINE_BYTES)
        __builtin_prefetch((const uint8_t *)memory + at);
}

static struct cache_entry *entry_at(const struct cache *cache, size_t at)
{
    return (struct cache_entry *)(void *)(cache->ring + (uint64_t)(cache->places.list[at].unit - 1) * ENTRY_UNIT);
}

static void fetch_entry(const struct cache *cache, size_t at)
{
    fetch_ahead(entry_at(cache, at), sizeof(struct cache_entry) + KEY_BYTES_LIKELY);
    marks_fetch_ahead(cache->marks, cache->places.list[at].content_slot);
}

/* Where the key is, or the free place where it would be. */
static size_t find(const struct cache *cache, uint32_t tag, struct kv_slice key)
{
    const struct places *places = &cache->places;
    size_t at = places_find(places, tag, places_home(places, tag));
    while (places->list[at].unit != 0 && !kv_slice_equal(entry_key(entry_at(cache, at)), key))
        at = places_find(places, tag, places_behind(places, at));
    return at;
}

/* ---- the ring ----------------------------------------------------------------------------------------------------- */

static void drop(struct cache *cache, size_t at)
{
    struct cache_entry *entry = entry_at(cache, at);
    kv_assert(entry->inside.listed);
    entry->inside.listed = false;
    places_remove(&cache->places, at);
}

void cache_let_go(struct cache_entry *entry)
{
    kv_assert(entry->inside.holders > 0);
    entry->inside.holders--;
}

/* Bytes from `offset` to the end of the ring. */
static uint64_t to_end(const struct cache *cache, uint64_t offset)
{
    return cache->ring_bytes - offset % cache->ring_bytes;
}

/* A block that holds nothing, up to `end`. */
static void pad(struct cache *cache, uint64_t end)
{
    if (end > cache->head)
        block_at(cache, cache->head)->inside = (struct cache_inside){.bytes = end - cache->head};
    cache->head = end;
}

/* Lets the tail pass a block. One that is lent out stays where it is: the head jumps over it. */
static void pass_oldest(struct cache *cache)
{
    struct cache_entry *oldest = block_at(cache, cache->tail);
    uint64_t behind = cache->tail + oldest->inside.bytes;
    if (oldest->inside.listed)
        drop(cache, find(cache, oldest->inside.tag, entry_key(oldest)));
    if (oldest->inside.holders > 0) {
        pad(cache, cache->tail + cache->ring_bytes);
        cache->head += oldest->inside.bytes;
    }
    cache->tail = behind;
}

/* A place for one block at the head. NULL: everything in the way is lent out, or it is too large. */
static struct cache_entry *take_block(struct cache *cache, uint64_t bytes)
{
    uint64_t give_up = cache->tail + cache->ring_bytes;
    if (bytes > cache->ring_bytes / 4)
        return NULL;
    for (;;) {
        uint64_t begin = cache->head;
        uint64_t padding = to_end(cache, begin) < bytes ? to_end(cache, begin) : 0;
        if (begin + padding + bytes <= cache->tail + cache->ring_bytes) {
            pad(cache, begin + padding);
            cache->head += bytes;
            return block_at(cache, begin + padding);
        }
        if (cache->tail >= give_up)
            return NULL;
        pass_oldest(cache);
    }
}

/* Into the table, where its key is not. */
static void list(struct cache *cache, struct cache_entry *entry)
{
    uint32_t unit = (uint32_t)((uint64_t)((uint8_t *)entry - cache->ring) / ENTRY_UNIT + 1);
    places_add(&cache->places, (struct place){entry->inside.tag, unit, entry->inside.content_slot, 0});
    entry->inside.listed = true;
}

/* ---- staying ------------------------------------------------------------------------------------------------------ */

/* Not long before the tail comes. */
static bool is_old(const struct cache *cache, const struct cache_entry *entry)
{
    uint64_t quarter = cache->ring_bytes / 4;
    uint64_t at = (uint64_t)((const uint8_t *)entry - cache->ring), tail = cache->tail % cache->ring_bytes;
    uint64_t before = at >= tail ? at - tail : at + cache->ring_bytes - tail;
    return cache->head - cache->tail > 3 * quarter && before < quarter;
}

/* A copy at the head in its place, with the caller as its holder, or the entry itself where that cannot be. */
static struct cache_entry *renew(struct cache *cache, struct cache_entry *entry)
{
    struct cache_entry *copy = take_block(cache, entry->inside.bytes); /* may drop the entry, which is held */
    if (copy == NULL)
        return entry;
    memcpy(copy, entry, entry->inside.bytes);
    entry_moved(copy, entry);
    if (entry->inside.listed)
        drop(cache, find(cache, entry->inside.tag, entry_key(entry)));
    cache_let_go(entry);
    copy->inside.holders = 1;
    list(cache, copy);
    return copy;
}

/* ---- looking up --------------------------------------------------------------------------------------------------- */

static bool is_true(const struct cache *cache, const struct cache_inside *inside)
{
    return marks_remembers(cache->marks, inside->since) &&
           marks_unchanged(cache->marks, inside->key_slot, inside->key_word) &&
           marks_unchanged(cache->marks, inside->content_slot, inside->content_word);
}

uint64_t cache_fetch_place(struct cache *cache, struct kv_slice key)
{
    if (cache == NULL)
        return 0;
    uint64_t hash = marks_hash(cache->marks, key);
    marks_fetch_ahead(cache->marks, marks_slot(cache->marks, hash));
    fetch_ahead(&cache->places.list[places_home(&cache->places, (uint32_t)hash)], sizeof(struct place));
    return hash;
}

void cache_fetch_entry(struct cache *cache, uint64_t hash)
{
    if (cache == NULL)
        return;
    size_t at = places_find(&cache->places, (uint32_t)hash, places_home(&cache->places, (uint32_t)hash));
    if (cache->places.list[at].unit != 0)
        fetch_entry(cache, at);
}

/* The entry of the key while it is true, or NULL. */
static struct cache_entry *look_up(struct cache *cache, struct kv_slice key)
{
    if (cache == NULL)
        return NULL;
    uint64_t hash = cache_fetch_place(cache, key);
    size_t at = find(cache, (uint32_t)hash, key);
    if (cache->places.list[at].unit == 0)
        return NULL;
    struct cache_entry *entry = entry_at(cache, at);
    if (is_true(cache, &entry->inside))
        return entry;
    drop(cache, at);
    return NULL;
}

bool cache_get_row(struct cache *cache, struct kv_slice key, struct kv_row *out)
{
    const struct cache_entry *entry = look_up(cache, key);
    if (entry == NULL)
        return false;
    *out = entry->row;
    out->content_type = kv_slice(NULL, 0); /* lives in the entry */
    return true;
}

struct cache_entry *cache_get(struct cache *cache, struct kv_slice key)
{
    struct cache_entry *entry = look_up(cache, key);
    if (entry == NULL)
        return NULL;
    entry->inside.holders++;
    entry->inside.asked = true;
    if (is_old(cache, entry))
        entry = renew(cache, entry);
    fetch_ahead(entry->content.data, entry->content.bytes < AHEAD_BYTES_MAX ? entry->content.bytes : AHEAD_BYTES_MAX);
    return entry;
}

/* ---- sweeping ----------------------------------------------------------------------------------------------------- */

/* Gives the memory of [begin, end) of the ring back, which the tail has passed, unless the head has come round. Whole huge pages leave,
 * each when the tail is through with it: of one that left in parts the kernel makes a whole again. */
static void leave(const struct cache *cache, uint64_t begin, uint64_t end)
{
    uint64_t last = end - end % cache->ring_bytes % HUGE_PAGE_BYTES;
    begin -= begin % cache->ring_bytes % HUGE_PAGE_BYTES;
    if (begin + cache->ring_bytes < cache->head)
        begin = cache->head - cache->ring_bytes;
    while (begin < last) {
        uint64_t bytes = last - begin < to_end(cache, begin) ? last - begin : to_end(cache, begin);
        huge_leave(block_at(cache, begin), bytes);
        begin += bytes;
    }
}

/* Copies the oldest entry to the head, as if it came now. */
static void keep_oldest(struct cache *cache)
{
    struct cache_entry *oldest = block_at(cache, cache->tail);
    oldest->inside.holders++;
    oldest->inside.asked = false;
    cache_let_go(renew(cache, oldest));
}

void cache_sweep(struct cache *cache)
{
    if (cache == NULL)
        return;
    uint64_t begin = cache->tail;
    if (begin >= cache->round_end) { /* what is copied comes behind it */
        cache->round_end = cache->head;
        cache->round_share = (cache->head - begin) / CACHE_SWEEPS + CACHE_SWEEP_BYTES_MIN;
    }
    uint64_t left = cache->round_end - begin;
    uint64_t until = begin + (left < cache->round_share ? left : cache->round_share);
    while (cache->tail < until) {
        const struct cache_inside *oldest = &block_at(cache, cache->tail)->inside;
        if (oldest->holders > 0)
            break; /* next time */
        if (oldest->listed && oldest->asked)
            keep_oldest(cache);
        else
            pass_oldest(cache);
    }
    leave(cache, begin, cache->tail);
    if (cache->tail == cache->head && begin < cache->tail)
        huge_leave(cache->ring, cache->ring_bytes); /* the page that the tail stands in, too */
    places_shrink(&cache->places);
}

/* ---- filling ------------------------------------------------------------------------------------------------------ */

uint64_t cache_now(const struct cache *cache)
{
    return cache == NULL ? 0 : marks_now(cache->marks);
}

bool cache_wants(const struct cache *cache, const struct kv_object *object)
{
    bool whole = object->stored_bytes == object->bytes.bytes && object->stored_bytes <= 2 * CACHE_CONTENT_BYTES_MAX;
    return cache != NULL && !object->held &&
           (object->size > CACHE_CONTENT_BYTES_MAX ? object->bytes.bytes == 0 : whole);
}

static struct cache_inside inside_of(const struct cache *cache, uint64_t since, struct kv_slice key,
                                     const struct kv_row *row)
{
    uint64_t hash = marks_hash(cache->marks, key);
    return (struct cache_inside){.since = since,
                                 .tag = (uint32_t)hash,
                                 .key_bytes = (uint32_t)key.bytes,
                                 .key_slot = marks_slot(cache->marks, hash),
                                 .content_slot =
                                     marks_slot(cache->marks, marks_hash(cache->marks, kv_hash_slice(&row->hash)))};
}

/* The block at this place, if it may be written again: a key that is written over and over shall not push others out. */
static struct cache_entry *reuse(struct cache *cache, size_t at, uint64_t bytes)
{
    struct cache_entry *entry = entry_at(cache, at);
    bool fits = entry->inside.holders == 0 && entry->inside.bytes == bytes;
    drop(cache, at);
    return fits ? entry : NULL;
}

/* In the place of what the table has of this key. */
static void keep(struct cache *cache, struct cache_inside inside, struct kv_slice key, const struct kv_row *row,
                 const struct kv_object *object, struct kv_slice content)
{
    kv_assert(cache_wants(cache, object));
    kv_assert(content.bytes == (object->size > CACHE_CONTENT_BYTES_MAX ? 0 : object->size));
    struct cache_entry *entry = NULL;
    size_t at = find(cache, inside.tag, key);
    inside.bytes = entry_bytes(key, row, object, content);
    if (cache->places.list[at].unit != 0) {
        inside.asked = inside.asked || entry_at(cache, at)->inside.asked; /* for the key */
        entry = reuse(cache, at, inside.bytes);
    }
    if (entry == NULL)
        entry = take_block(cache, inside.bytes);
    if (entry == NULL)
        return;
    entry->inside = inside;
    entry_fill(entry, key, row, object, content);
    list(cache, entry);
}

void cache_put(struct cache *cache, uint64_t since, struct kv_slice key, const struct kv_row *row,
               const struct kv_object *object, struct kv_slice content)
{
    struct cache_inside inside = inside_of(cache, since, key, row);
    inside.asked = true;
    if (marks_remembers(cache->marks, since) && marks_quiet(cache->marks, inside.key_slot, since, &inside.key_word) &&
        marks_quiet(cache->marks, inside.content_slot, since, &inside.content_word))
        keep(cache, inside, key, row, object, content);
}

void cache_put_written(struct cache *cache, uint64_t since, struct marks_proof proof, struct kv_slice key,
                       const struct kv_row *row, const struct kv_object *object, struct kv_slice content)
{
    struct cache_inside inside = inside_of(cache, since, key, row);
    inside.key_word = proof.key_word;
    inside.content_word = proof.content_word;
    if (proof.key_word != 0 && proof.content_word != 0 && is_true(cache, &inside))
        keep(cache, inside, key, row, object, content);
}

uint64_t cache_bytes(const struct cache *cache)
{
    return cache == NULL ? 0 : cache->head - cache->tail;
}

uint64_t cache_entries(const struct cache *cache)
{
    return cache == NULL ? 0 : cache->places.count;
}
