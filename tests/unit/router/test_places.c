/* Goal: what was put into the table is found, what was taken out is not, however the tags collide and the table grows and shrinks.
 * Method: random adding and removing from a seed, few distinct tags and few distinct homes, beside a plain list. */
#include <criterion/criterion.h>

#include "places.h"

enum { UNITS = 3000, STEPS = 60000 };

static uint32_t tags[UNITS]; /* of the unit, plus 1; 0: it is not in the table */
static uint32_t seed = 41;

static uint32_t random_below(uint32_t end)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % end;
}

/* The place of a unit, or the free one at the end of its tag's. */
static size_t find(const struct places *places, uint32_t tag, uint32_t unit)
{
    size_t at = places_find(places, tag, places_home(places, tag));
    while (places->list[at].unit != 0 && places->list[at].unit != unit)
        at = places_find(places, tag, places_behind(places, at));
    return at;
}

static void expect_all(const struct places *places)
{
    size_t count = 0;
    for (uint32_t unit = 1; unit < UNITS; unit++) {
        count += tags[unit] != 0;
        if (tags[unit] != 0)
            cr_assert_eq(places->list[find(places, tags[unit] - 1, unit)].unit, unit);
    }
    cr_assert_eq(places->count, count);
    cr_assert_leq(2 * count, places->mask + 1);
}

/* Adds mostly, or removes mostly. */
static void step(struct places *places, bool growing)
{
    uint32_t unit = 1 + random_below(UNITS - 1);
    bool add = tags[unit] == 0 && (growing || random_below(100) == 0);
    bool remove = tags[unit] != 0 && (!growing || random_below(100) == 0);
    if (add) {
        uint32_t tag = random_below(40) | random_below(8) << 20; /* same homes, and the same tags */
        cr_assert_eq(places->list[find(places, tag, unit)].unit, 0);
        places_add(places, (struct place){.tag = tag, .unit = unit, .content_slot = unit * 3});
        tags[unit] = tag + 1;
    } else if (remove) {
        size_t at = find(places, tags[unit] - 1, unit);
        cr_assert_eq(places->list[at].content_slot, unit * 3);
        places_remove(places, at);
        tags[unit] = 0;
    }
}

Test(places, all_are_found)
{
    struct places places;
    places_init(&places);
    size_t mask = places.mask;
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < STEPS; i++)
            step(&places, round % 2 == 0);
        places_shrink(&places);
        expect_all(&places);
        cr_expect_eq(places.mask > mask, round % 2 == 0, "grows, and shrinks again");
    }
    places_free(&places);
}
