/* Goal: while a commit is under way its file is written out again and again, and never behind its end.
 * Method: the kernel's twin counts its calls and remembers the descriptor. */
#include <criterion/criterion.h>

#include <stdatomic.h>
#include <unistd.h>

#include "kv/clock.h"
#include "writeback.h"

#define WAIT_MS_MAX 60000
#define NOBODY 1234 /* a descriptor that is none */

static atomic_int calls, last_fd;

static void start_twin(int fd)
{
    atomic_store(&last_fd, fd);
    atomic_fetch_add(&calls, 1);
}

static void wait_for_calls(int count)
{
    uint64_t end_ms = kv_clock_ms() + WAIT_MS_MAX;
    while (atomic_load(&calls) < count) {
        cr_assert_lt(kv_clock_ms(), end_ms, "%d calls", atomic_load(&calls));
        usleep(500);
    }
}

Test(writeback, writes_from_begin_to_end)
{
    struct writeback *writeback = writeback_new(start_twin);
    for (int round = 0; round < 20; round++) {
        int before = atomic_load(&calls);
        writeback_begin(writeback, NOBODY + round);
        wait_for_calls(before + 2);
        cr_assert_eq(atomic_load(&last_fd), NOBODY + round);
        writeback_end(writeback);
        int after = atomic_load(&calls);
        usleep(3 * WRITEBACK_MS * 1000);
        cr_assert_eq(atomic_load(&calls), after, "behind the end of round %d", round);
    }
    writeback_free(&writeback);
    cr_expect_null(writeback);
}

Test(writeback, short_commits_and_none)
{
    struct writeback *writeback = writeback_new(start_twin);
    writeback_free(&writeback); /* no thread yet */
    writeback = writeback_new(NULL);
    for (int round = 0; round < 1000; round++) {
        writeback_begin(writeback, NOBODY); /* the kernel refuses it: nobody minds */
        writeback_end(writeback);
    }
    writeback_begin(writeback, NOBODY);
    writeback_free(&writeback); /* in the midst of one */
    cr_expect_null(writeback);
}
