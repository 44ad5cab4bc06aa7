/* Goal: what was added is never denied, and of what was not, as much is recognised as filter.h says.
 * Method: a fixed sequence of mixed numbers, the first part added, the rest asked for. */
#include <criterion/criterion.h>

#include "filter.h"

#define ROWS 50000u

/* The n-th number of splitmix64: well mixed, never twice. */
static uint64_t hash_of(uint64_t n)
{
    uint64_t z = n * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static unsigned taken_for_present(const struct filter *filter)
{
    unsigned count = 0;
    for (uint64_t n = 0; n < ROWS; n++)
        count += !filter_lacks(filter, hash_of(1000000 + n));
    return count;
}

Test(filter, denies_nothing_that_was_added)
{
    struct filter *filter = filter_new(ROWS);
    cr_expect_eq(taken_for_present(filter), 0u, "an empty one lacks everything");
    for (uint64_t n = 0; n < ROWS; n++) {
        filter_add(filter, hash_of(n));
        cr_assert_not(filter_lacks(filter, hash_of(n)));
    }
    for (uint64_t n = 0; n < ROWS; n++)
        cr_assert_not(filter_lacks(filter, hash_of(n)), "row %llu", (unsigned long long)n);
    filter_free(&filter);
    cr_expect_null(filter);
}

Test(filter, recognises_most_of_what_is_absent)
{
    struct filter *filter = filter_new(ROWS);
    for (uint64_t n = 0; n < ROWS / 2; n++)
        filter_add(filter, hash_of(n));
    cr_expect_lt(taken_for_present(filter), ROWS / 100, "half full");
    for (uint64_t n = ROWS / 2; n < ROWS; n++)
        filter_add(filter, hash_of(n));
    cr_expect_lt(taken_for_present(filter), ROWS / 15, "full");
    filter_free(&filter);
}

Test(filter, is_full_when_more_rows_came_than_it_has_room_for)
{
    struct filter *filter = filter_new(1000);
    uint64_t n = 0;
    while (!filter_is_full(filter) && n < 2000)
        filter_add(filter, hash_of(n++));
    cr_expect_gt(n, 1000u);
    cr_expect_lt(n, 1200u, "%llu rows", (unsigned long long)n);
    filter_free(&filter);
    filter = filter_new(1000);
    for (n = 0; n < 5000; n++)
        filter_add(filter, hash_of(n % 900)); /* the same ones again take no room */
    cr_expect_not(filter_is_full(filter));
    filter_free(&filter);
}

Test(filter, the_smallest_has_a_word)
{
    struct filter *filter = filter_new(0);
    filter_add(filter, UINT64_MAX);
    filter_add(filter, 0);
    cr_expect_not(filter_lacks(filter, UINT64_MAX));
    cr_expect_not(filter_lacks(filter, 0));
    filter_free(&filter);
}
