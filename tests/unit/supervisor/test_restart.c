/* Goal: the pauses are those that restart.c promises. Method: pure policy, sequences of endings. */
#include <criterion/criterion.h>

#include "kv/child.h"
#include "restart.h"

static uint64_t wait_after(struct restart *restart, struct restart_ending ending)
{
    uint64_t wait_ms = UINT64_MAX;
    cr_assert_eq((int)restart_decide(restart, &ending, &wait_ms), (int)RESTART_AFTER_PAUSE);
    return wait_ms;
}

static const struct restart_ending never_ready = {.exit_code = KV_EXIT_FATAL};
static const struct restart_ending steady = {.by_signal = true, .was_ready = true, .ready_ms = RESTART_STEADY_MS};
static const struct restart_ending brief = {.by_signal = true, .was_ready = true, .ready_ms = RESTART_STEADY_MS - 1};

Test(restart, doubles_while_it_never_gets_ready)
{
    static const uint64_t expected[] = {50, 100, 200, 400, 800, 1600, 2500, 2500, 2500, 2500};
    struct restart restart = {.pause_ms_max = restart_pause_ms_max(10000)};
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
        cr_expect_eq(wait_after(&restart, never_ready), expected[i], "death %zu", i);
}

Test(restart, at_once_after_a_steady_time_and_the_pause_begins_anew)
{
    struct restart restart = {.pause_ms_max = restart_pause_ms_max(10000)};
    for (int i = 0; i < 12; i++)
        wait_after(&restart, never_ready);
    cr_expect_eq(wait_after(&restart, steady), 0u);
    cr_expect_eq(wait_after(&restart, steady), 0u);
    cr_expect_eq(wait_after(&restart, never_ready), 50u);
}

Test(restart, ready_for_a_moment_waits_at_most_a_second)
{
    static const uint64_t expected[] = {50, 100, 200, 400, 800, 1000, 1000, 1000};
    struct restart restart = {.pause_ms_max = restart_pause_ms_max(10000)};
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
        cr_expect_eq(wait_after(&restart, brief), expected[i], "death %zu", i);
}

Test(restart, damaged_files_get_the_longest_pause)
{
    struct restart restart = {.pause_ms_max = restart_pause_ms_max(10000)};
    struct restart_ending corrupt = {.exit_code = KV_EXIT_CORRUPT, .was_ready = true, .ready_ms = 3600000};
    cr_expect_eq(wait_after(&restart, corrupt), 10000u);
    cr_expect_eq(wait_after(&restart, corrupt), 10000u);
    corrupt.exit_code = KV_EXIT_UNREAD;
    cr_expect_eq(wait_after(&restart, corrupt), 10000u);
    cr_expect_eq(wait_after(&restart, never_ready), 50u, "its own trouble is not counted for others");
}

Test(restart, a_wrong_start_is_never_repeated)
{
    struct restart restart = {.pause_ms_max = restart_pause_ms_max(10000)};
    struct restart_ending wrong = {.exit_code = KV_EXIT_CONFIG};
    uint64_t wait_ms;
    cr_expect_eq((int)restart_decide(&restart, &wrong, &wait_ms), (int)RESTART_NEVER);
    wrong.by_signal = true; /* signal 2 is no exit code 2 */
    wrong.exit_code = 0;
    cr_expect_eq((int)restart_decide(&restart, &wrong, &wait_ms), (int)RESTART_AFTER_PAUSE);
}

/* An exit that nobody asked for is a death like any other, also with code 0. */
Test(restart, exit_code_0_unasked_starts_again)
{
    struct restart restart = {.pause_ms_max = restart_pause_ms_max(10000)};
    cr_expect_eq(wait_after(&restart, (struct restart_ending){.exit_code = 0}), 50u);
}

/* Requests wait SHARD_WAIT_MS: whatever has happened before, a shard whose next starts fail twice is tried again in that time. */
Test(restart, the_longest_pause_fits_into_what_requests_wait)
{
    static const uint64_t waits_ms[] = {1, 200, 1000, 10000, 3600000};
    static const uint64_t expected[] = {50, 50, 250, 2500, RESTART_PAUSE_MS_MAX};
    for (size_t i = 0; i < sizeof(waits_ms) / sizeof(waits_ms[0]); i++) {
        struct restart restart = {.pause_ms_max = restart_pause_ms_max(waits_ms[i])};
        for (int death = 0; death < 20; death++)
            wait_after(&restart, death % 2 == 0 ? brief : never_ready);
        cr_expect_eq(wait_after(&restart, never_ready), expected[i], "SHARD_WAIT_MS=%llu",
                     (unsigned long long)waits_ms[i]);
    }
}
