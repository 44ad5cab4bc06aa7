/* router/places.h -- the cache's table: where the entry of a key may be, by the hash of the key (cache.h). Open addressing.
 * Owns:     memory in huge pages, where the kernel has them; it grows when half full and shrinks when asked to.
 * Promises: whatever is taken out, what is left is found from its home on without a gap.
 * Fails:    no memory: fatal. Tests: unit/router/test_places.c, test_cache.c. */
#ifndef KV_ROUTER_PLACES_H
#define KV_ROUTER_PLACES_H

#include <stddef.h>
#include <stdint.h>

/* The hash is the marks', seeded, since clients choose the keys. */
struct place {
    uint32_t tag;  /* low bits of the hash */
    uint32_t unit; /* where the entry is, plus one; 0: free */
    uint32_t content_slot;
    uint32_t unused;
};

struct places {
    struct place *list;
    size_t mask; /* at least twice as many places as entries */
    size_t count;
};

void places_init(struct places *places);
void places_free(struct places *places);

/* Where a search for the tag begins. */
static inline size_t places_home(const struct places *places, uint32_t tag)
{
    return tag & places->mask;
}

/* The first place with this tag, or the free one behind all of them: from `at` on, its home or behind one of its places. */
static inline size_t places_find(const struct places *places, uint32_t tag, size_t at)
{
    while (places->list[at].unit != 0 && places->list[at].tag != tag)
        at = (at + 1) & places->mask;
    return at;
}

static inline size_t places_behind(const struct places *places, size_t at)
{
    return (at + 1) & places->mask;
}

/* Any number of them may have the same tag. Both move others. */
void places_add(struct places *places, struct place place);
void places_remove(struct places *places, size_t at);
void places_shrink(struct places *places);

#endif
