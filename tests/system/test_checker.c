/* Goal: the checker says yes to what is linearizable and no to what is not; otherwise it proves nothing about the store.
 * Method: small histories written by hand, each a known rule or a known fault (stale read, lost update, torn batch, an unanswered write
 * that comes and goes); long ones made by a seed from a true order, which must pass, and the same with one answer forged, which must
 * not. */
#include <criterion/criterion.h>

#include "../sim/random.h"
#include "checker.h"

static struct history history;

static void open_history(void)
{
    history_init(&history);
}

static void close_history(void)
{
    history_free(&history);
}

TestSuite(checker, .init = open_history, .fini = close_history, .timeout = 600);

#define GET(k, v)                                                                                                      \
    {                                                                                                                  \
        .kind = STEP_GET, .key = (k), .value = (v)                                                                     \
    }
#define PUT(k, v, e)                                                                                                   \
    {                                                                                                                  \
        .kind = STEP_WRITE, .key = (k), .value = (v), .existed = (e)                                                   \
    }
#define CAS(k, v, old)                                                                                                 \
    {                                                                                                                  \
        .kind = STEP_WRITE, .key = (k), .value = (v), .existed = (old) != 0, .match = HISTORY_HOLDS,                   \
        .match_value = (old)                                                                                           \
    }
#define CREATE(k, v)                                                                                                   \
    {                                                                                                                  \
        .kind = STEP_WRITE, .key = (k), .value = (v), .match = HISTORY_ABSENT                                          \
    }
/* done(from, to, steps…), open(from, steps…), refused(from, to, step, steps…) */
#define ADD(from, to, how, at, ...)                                                                                    \
    do {                                                                                                               \
        struct history_step steps[] = {__VA_ARGS__};                                                                   \
        history_add(&history, &(struct history_op){.invoked = (from),                                                  \
                                                   .returned = (to),                                                   \
                                                   .outcome = (how),                                                   \
                                                   .steps = steps,                                                     \
                                                   .step_count = sizeof steps / sizeof *steps,                         \
                                                   .refused_at = (at)});                                               \
    } while (0)
#define DONE(from, to, ...) ADD(from, to, HISTORY_DONE, 0, __VA_ARGS__)
#define OPEN(from, ...) ADD(from, HISTORY_OPEN, HISTORY_UNCERTAIN, 0, __VA_ARGS__)
#define REFUSED(from, to, at, ...) ADD(from, to, HISTORY_PRECONDITION, at, __VA_ARGS__)

static void expect(enum checker_verdict wanted)
{
    char why[4096] = "";
    enum checker_verdict verdict = checker_run(&history, why, sizeof why);
    cr_assert(verdict == wanted, "verdict %d, not %d: %s", verdict, wanted, why);
    cr_assert((verdict == CHECKER_YES) == (why[0] == '\0'));
}

Test(checker, nothing_is_fine)
{
    expect(CHECKER_YES);
}

Test(checker, reads_what_was_written)
{
    DONE(1, 2, PUT(0, 7, false));
    DONE(3, 4, GET(0, 7));
    DONE(5, 6, PUT(0, 0, true));
    DONE(7, 8, GET(0, 0));
    expect(CHECKER_YES);
}

Test(checker, finds_a_stale_read)
{
    DONE(1, 2, PUT(0, 7, false));
    DONE(3, 4, PUT(0, 8, true));
    DONE(5, 6, GET(0, 7));
    expect(CHECKER_NO);
}

Test(checker, finds_a_lost_write)
{
    DONE(1, 2, PUT(0, 7, false));
    DONE(3, 4, GET(0, 0));
    expect(CHECKER_NO);
}

Test(checker, lets_concurrent_writes_fall_either_way)
{
    DONE(1, 10, PUT(0, 7, false));
    DONE(2, 9, PUT(0, 8, true));
    DONE(11, 12, GET(0, 8));
    expect(CHECKER_YES);
}

Test(checker, finds_a_wrong_created)
{
    DONE(1, 2, PUT(0, 7, false));
    DONE(3, 4, PUT(0, 8, false)); /* says 201, but the key was there */
    expect(CHECKER_NO);
}

Test(checker, finds_two_readers_that_disagree_about_the_order)
{
    DONE(1, 20, PUT(0, 7, false));
    DONE(2, 21, PUT(0, 8, true));
    DONE(3, 4, GET(0, 7));
    DONE(5, 6, GET(0, 8));
    DONE(7, 8, GET(0, 7));
    expect(CHECKER_NO);
}

Test(checker, finds_two_winners_of_one_compare_and_set)
{
    DONE(1, 2, PUT(0, 7, false));
    DONE(3, 9, CAS(0, 8, 7));
    DONE(4, 10, CAS(0, 9, 7));
    expect(CHECKER_NO);
}

Test(checker, takes_one_winner_and_one_refusal)
{
    DONE(1, 2, PUT(0, 7, false));
    DONE(3, 9, CAS(0, 8, 7));
    REFUSED(4, 10, 0, CAS(0, 9, 7));
    DONE(11, 12, GET(0, 8));
    expect(CHECKER_YES);
}

Test(checker, finds_a_refusal_without_a_reason)
{
    DONE(1, 2, PUT(0, 7, false));
    REFUSED(4, 10, 0, CAS(0, 9, 7));
    expect(CHECKER_NO);
}

Test(checker, finds_a_refused_write_that_landed)
{
    DONE(1, 2, PUT(0, 7, false));
    REFUSED(3, 4, 0, CREATE(0, 9));
    DONE(5, 6, GET(0, 9));
    expect(CHECKER_NO);
}

Test(checker, lets_an_unanswered_write_land_late)
{
    OPEN(1, PUT(0, 7, false));
    DONE(2, 3, GET(0, 0));
    DONE(4, 5, GET(0, 7));
    expect(CHECKER_YES);
}

Test(checker, lets_an_unanswered_write_never_land)
{
    OPEN(1, PUT(0, 7, false));
    DONE(2, 3, GET(0, 0));
    DONE(4, 5, PUT(0, 8, false));
    expect(CHECKER_YES);
}

Test(checker, finds_an_unanswered_write_that_came_and_went)
{
    OPEN(1, PUT(0, 7, false));
    DONE(2, 3, GET(0, 7));
    DONE(4, 5, GET(0, 0));
    expect(CHECKER_NO);
}

Test(checker, finds_an_unanswered_write_before_it_was_asked)
{
    DONE(1, 2, GET(0, 7));
    OPEN(3, PUT(0, 7, false));
    expect(CHECKER_NO);
}

Test(checker, takes_a_batch_as_one_step)
{
    DONE(1, 2, PUT(0, 7, false), PUT(1, 8, false), GET(0, 7));
    DONE(3, 4, GET(0, 7), GET(1, 8));
    expect(CHECKER_YES);
}

Test(checker, finds_a_batch_seen_in_part)
{
    DONE(1, 10, PUT(0, 7, false), PUT(1, 8, false));
    DONE(2, 3, GET(0, 7));
    DONE(4, 5, GET(1, 0));
    expect(CHECKER_NO);
}

Test(checker, finds_an_unanswered_batch_seen_in_part)
{
    OPEN(1, PUT(0, 7, false), PUT(1, 8, false));
    DONE(2, 3, GET(1, 8));
    DONE(4, 5, GET(0, 0));
    expect(CHECKER_NO);
}

Test(checker, finds_a_snapshot_that_never_was)
{
    DONE(1, 2, PUT(0, 1, false), PUT(1, 2, false));
    DONE(3, 4, PUT(0, 3, true));
    DONE(5, 6, PUT(1, 4, true));
    DONE(3, 7, GET(0, 1), GET(1, 4)); /* 1 was gone before 4 came */
    expect(CHECKER_NO);
}

Test(checker, finds_write_skew)
{
    DONE(1, 2, PUT(0, 1, false), PUT(1, 2, false));
    DONE(3, 9, GET(0, 1), PUT(1, 3, true));
    DONE(4, 8, GET(1, 2), PUT(0, 4, true));
    expect(CHECKER_NO);
}

Test(checker, refuses_a_batch_at_the_right_step)
{
    DONE(1, 2, PUT(0, 7, false));
    REFUSED(3, 4, 1, CAS(0, 8, 7), CREATE(0, 9)); /* the first held, the second did not: it sees the first */
    DONE(5, 6, GET(0, 7));
    expect(CHECKER_YES);
}

Test(checker, finds_a_batch_refused_at_the_wrong_step)
{
    DONE(1, 2, PUT(0, 7, false));
    REFUSED(3, 4, 1, CAS(0, 8, 6), CREATE(0, 9));
    expect(CHECKER_NO);
}

Test(checker, does_not_mind_other_keys)
{
    for (unsigned i = 0; i < 20; i++) { /* 20 concurrent writes to 20 keys: 20! orders of the whole, one of each */
        DONE(1, 100, PUT(i, 7, false));
        DONE(101, 102, GET(i, 7));
    }
    expect(CHECKER_YES);
}

/* Each would double the states, though none can make a difference: 2^40 of them. */
Test(checker, leaves_out_unanswered_reads)
{
    for (unsigned i = 0; i < 40; i++) {
        OPEN(i, GET(i % 2, 0));
        OPEN(i, CREATE(0, 100 + i), GET(1, 0)); /* not while key 0 is there, which it is */
    }
    DONE(0, 0, PUT(0, 7, false), PUT(1, 7, false));
    for (unsigned i = 0; i < 10; i++)
        DONE(50, 60, GET(0, 7));
    DONE(50, 60, GET(1, 8)); /* nobody wrote it */
    expect(CHECKER_NO);
}

/* A true order of operations on 4 keys, each at its instant, stretched around it so that about `width` overlap; every tenth answer is
 * lost. Returns the number of the forged operation's place, when asked to forge. */
static void make_history(uint64_t seed, size_t count, uint64_t width, bool forge)
{
    uint32_t state[4] = {0};
    struct random random = {seed};
    for (size_t i = 0; i < count; i++) {
        unsigned key = (unsigned)random_below(&random, 4), other = (key + 1) % 4;
        bool get = random_chance(&random, 400), both = random_chance(&random, 300), lost = random_chance(&random, 100);
        uint32_t value = (uint32_t)i + 1;
        struct history_step steps[2] = {PUT(key, value, state[key] != 0), PUT(other, value, state[other] != 0)};
        if (get) {
            steps[0] = (struct history_step)GET(key, state[key]);
            steps[1] = (struct history_step)GET(other, state[other]);
        } else if (!lost || random_chance(&random, 500)) {
            state[key] = value;
            state[other] = both ? value : state[other];
        }
        if (forge && get && !lost && i > count / 2) { /* a value that was never there */
            steps[0].value = (uint32_t)count + 1;
            forge = false;
        }
        uint64_t instant = (i + 1) * 10, early = random_below(&random, 10 * width + 1);
        history_add(&history, &(struct history_op){.invoked = instant > early ? instant - early : 0,
                                                   .returned = lost ? HISTORY_OPEN
                                                                    : instant + random_below(&random, 10 * width + 1),
                                                   .outcome = lost ? HISTORY_UNCERTAIN : HISTORY_DONE,
                                                   .steps = steps,
                                                   .step_count = both ? 2 : 1});
    }
}

Test(checker, takes_every_true_order)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        make_history(seed, 400, seed % 7, false);
        expect(CHECKER_YES);
        history_free(&history);
        history_init(&history);
    }
}

Test(checker, finds_every_forged_answer)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        make_history(seed, 60, seed % 4, true);
        expect(CHECKER_NO);
        history_free(&history);
        history_init(&history);
    }
}
