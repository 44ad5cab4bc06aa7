/* Goal: seeds differ, and a seed gives the numbers that splitmix64 is known for. Method: the published sequence of one seed. */
#include <criterion/criterion.h>

#include "random.h"

Test(random, seeds_differ)
{
    cr_expect_neq(random_seed(), random_seed());
}

Test(random, known_sequence)
{
    static const uint64_t expected[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                        4593380528125082431u, 16408922859458223821u};
    uint64_t state = 1234567;
    for (unsigned i = 0; i < sizeof expected / sizeof *expected; i++)
        cr_expect_eq(random_next(&state), expected[i]);
}
