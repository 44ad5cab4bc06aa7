/* router/places.c -- see places.h. */
#include "places.h"

#include "huge.h"
#include "kv/log.h"

#define PLACES_MIN 1024u

static void allocate(struct places *places, size_t count)
{
    places->mask = count - 1;
    places->list = huge_map(count * sizeof *places->list);
    if (places->list == NULL)
        kv_fatal("no memory for the places of %zu cached answers", count);
}

void places_init(struct places *places)
{
    allocate(places, PLACES_MIN);
    places->count = 0;
}

void places_free(struct places *places)
{
    huge_unmap(places->list, (places->mask + 1) * sizeof *places->list);
    *places = (struct places){0};
}

static void put(struct places *places, struct place place)
{
    size_t at = places_home(places, place.tag);
    while (places->list[at].unit != 0)
        at = places_behind(places, at);
    places->list[at] = place;
}

static void resize(struct places *places, size_t count)
{
    struct places old = *places;
    allocate(places, count);
    for (size_t i = 0; i <= old.mask; i++)
        if (old.list[i].unit != 0)
            put(places, old.list[i]);
    places_free(&old);
}

void places_add(struct places *places, struct place place)
{
    kv_assert(place.unit != 0);
    if (2 * (places->count + 1) > places->mask)
        resize(places, 2 * (places->mask + 1));
    put(places, place);
    places->count++;
}

/* Those behind that only stand there because this place was taken move up. */
void places_remove(struct places *places, size_t at)
{
    size_t mask = places->mask;
    kv_assert(places->list[at].unit != 0);
    for (size_t next = places_behind(places, at); places->list[next].unit != 0; next = places_behind(places, next)) {
        size_t home = places_home(places, places->list[next].tag);
        if (((next - home) & mask) < ((next - at) & mask))
            continue;
        places->list[at] = places->list[next];
        at = next;
    }
    places->list[at].unit = 0;
    places->count--;
}

void places_shrink(struct places *places)
{
    while (places->mask >= PLACES_MIN && places->count < places->mask / 8)
        resize(places, (places->mask + 1) / 2);
}
