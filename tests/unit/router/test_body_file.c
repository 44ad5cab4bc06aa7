/* Goal: files of large bodies end away from the loops, and those in memory serve the next bodies, unless a shard may still read them.
 * Method: files taken, extended, mapped, lent and let go of by hand; which descriptor comes back tells which file it is. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>

#include "body_file.h"
#include "kv/clock.h"

enum { MIB = 1 << 20, WAIT_MS_MAX = 60000 };

static void setup(void)
{
    body_files_init(UINT64_MAX);
}

TestSuite(body_file, .init = setup);

static struct body_file *new_file(size_t bytes)
{
    struct body_file *file = body_file_new(bytes, bytes);
    cr_assert_not_null(file);
    cr_assert_eq(body_file_extend(file, bytes, true), KV_OK);
    cr_assert_not_null(body_file_map(file, body_file_length(file)));
    return file;
}

/* The descriptor that the file had. */
static int free_file(struct body_file *file)
{
    int fd = body_file_fd(file);
    body_file_free(&file);
    return fd;
}

static void expect_closed(int fd)
{
    uint64_t end_ms = kv_clock_ms() + WAIT_MS_MAX;
    while (fcntl(fd, F_GETFD) != -1 && kv_clock_ms() < end_ms)
        sched_yield();
    cr_expect_eq(fcntl(fd, F_GETFD), -1, "it is still open");
}

Test(body_file, in_memory_serves_the_next_body)
{
    int small = free_file(new_file(2 * MIB));
    int large = free_file(new_file(4 * MIB));
    struct body_file *first = new_file(2 * MIB), *second = new_file(3 * MIB), *third = new_file(MIB);
    cr_expect_eq(body_file_fd(first), small, "the smallest that is large enough");
    cr_expect_eq(body_file_fd(second), large);
    cr_expect_eq(body_file_length(second), 4 * MIB);
    cr_expect_eq(body_file_bytes(), 7 * MIB);
    *body_file_peek(second, 4 * MIB - 1, 1) = 'x';
    cr_expect_null(body_file_peek(second, 4 * MIB - 1, 2), "beyond its end");
    free_file(first);
    free_file(second);
    free_file(third);
    cr_expect_eq(body_file_bytes(), 0, "what waits for the next bodies is not an upload");
}

Test(body_file, that_a_shard_may_read_serves_nobody)
{
    struct body_file *file = new_file(2 * MIB);
    body_file_lend(file);
    expect_closed(free_file(file));
    file = new_file(2 * MIB);
    body_file_lend(file);
    body_file_take_back(file);
    int fd = free_file(file);
    file = new_file(MIB);
    cr_expect_eq(body_file_fd(file), fd, "nobody reads it any more");
    free_file(file);
    body_files_trim();
    expect_closed(fd);
}

/* The one that waits longest goes first. */
Test(body_file, wait_up_to_a_sum)
{
    enum { FILES = BODY_FILE_SPARE_SUM_MAX / (8 * MIB) + 1 };
    struct body_file *files[FILES];
    int fds[FILES];
    for (int i = 0; i < FILES; i++)
        files[i] = new_file(8 * MIB);
    for (int i = 0; i < FILES; i++)
        fds[i] = free_file(files[i]);
    expect_closed(fds[0]);
    for (int i = 1; i < FILES; i++)
        cr_expect_neq(fcntl(fds[i], F_GETFD), -1, "file %d", i);
    body_files_trim();
    for (int i = 1; i < FILES; i++)
        expect_closed(fds[i]);
}

static void wait_for_growth(const struct body_file *file)
{
    uint64_t end_ms = kv_clock_ms() + WAIT_MS_MAX;
    while (body_file_grows(file) && kv_clock_ms() < end_ms)
        sched_yield();
    cr_assert_not(body_file_grows(file));
}

/* By itself, into a mapping that was there before; what was written stays. */
Test(body_file, on_the_disk_grow_ahead)
{
    struct body_file *file = body_file_new(UINT64_MAX / 2, MIB);
    cr_assert_eq(body_file_extend(file, MIB, true), KV_OK);
    uint8_t *map = body_file_map(file, 16 * MIB);
    cr_assert_not_null(map);
    map[MIB - 1] = 'x';
    body_file_extend_soon(file, 5 * MIB + 1);
    wait_for_growth(file);
    cr_expect_eq(body_file_length(file), 5 * MIB + 1);
    cr_expect_eq(body_file_bytes(), 5 * MIB + 1);
    cr_expect_eq(map[MIB - 1], 'x');
    map[5 * MIB] = 'y';
    uint8_t read = 0;
    cr_expect_eq(body_file_read(file, 5 * MIB, &read, 1), KV_OK);
    cr_expect_eq(read, 'y');
    body_file_extend_soon(file, 2 * MIB);
    wait_for_growth(file);
    cr_expect_eq(body_file_length(file), 5 * MIB + 1, "it has that already");
    body_file_extend_soon(file, 15 * MIB);
    cr_expect_eq(body_file_extend(file, 16 * MIB, false), KV_OK, "at the same time");
    wait_for_growth(file);
    cr_expect_eq(body_file_length(file), 16 * MIB);
    free_file(file);
    cr_expect_eq(body_file_bytes(), 0);
}

/* Beyond three quarters room is for those who need it now. */
Test(body_file, grow_ahead_while_there_is_room)
{
    body_files_init(16 * MIB);
    struct body_file *file = new_file(9 * MIB);
    body_file_extend_soon(file, 14 * MIB);
    wait_for_growth(file);
    cr_expect_eq(body_file_length(file), 12 * MIB);
    cr_expect_eq(body_file_extend(file, 16 * MIB, false), KV_OK);
    cr_expect_eq(body_file_extend(file, 17 * MIB, false), KV_OVERLOADED);
    free_file(file);
}

/* Of one on the disk nothing is left: neither a descriptor nor its mapping nor its share of the sum. */
Test(body_file, on_the_disk_end)
{
    size_t bytes = BODY_FILE_MEMORY_MAX + MIB;
    struct body_file *file = new_file(bytes), *holder = body_file_hold(file);
    void *map = body_file_map(file, bytes);
    cr_expect_not(body_file_is_in_memory(file));
    cr_expect_null(body_file_peek(file, 0, 1));
    int fd = free_file(file);
    cr_expect_eq(body_file_bytes(), bytes, "somebody holds it");
    body_file_free(&holder);
    cr_expect_eq(body_file_bytes(), 0, "the next upload need not wait for the disk");
    expect_closed(fd);
    cr_expect_neq(msync(map, 4096, MS_ASYNC), 0, "the mapping is gone");
}
