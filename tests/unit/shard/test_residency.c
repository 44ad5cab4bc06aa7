/* Goal: pages of a mapped file leave memory when told to, bytes stay what they were, and nothing outside of the map is touched.
 * Method: a mapped temp file of known bytes; mincore for the cache is no use, so what this process has mapped is read from statm. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "residency.h"

enum { MIB = 1024 * 1024, BYTES = 16 * MIB };

static uint8_t *map;

static uint64_t file_bytes(void)
{
    unsigned long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    cr_assert_eq(fscanf(statm, "%*u %*u %lu", &pages), 1);
    fclose(statm);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void setup(void)
{
    char path[] = "/tmp/kv-residency-XXXXXX";
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && unlink(path) == 0);
    uint8_t *bytes = malloc(BYTES);
    for (size_t i = 0; i < BYTES; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 4096);
    cr_assert_eq(write(fd, bytes, BYTES), BYTES);
    map = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, fd, 0);
    cr_assert_neq(map, MAP_FAILED);
    free(bytes);
    close(fd);
}

TestSuite(residency, .init = setup);

static void read_all(void)
{
    for (size_t i = 0; i < BYTES; i += 997)
        cr_assert_eq(map[i], (uint8_t)(i * 7 + i / 4096));
}

Test(residency, what_was_read_leaves_and_can_be_read_again)
{
    struct residency residency = residency_find(map + 5 * MIB);
    cr_assert_eq(residency.begin, map);
    cr_assert_eq(residency.bytes, BYTES);
    read_all();
    uint64_t full = file_bytes();
    residency_trim(&residency, 2 * full + MIB);
    residency_leave(&residency, map + 4 * MIB + 100, 8 * MIB);
    cr_expect_geq(file_bytes() + MIB, full, "nobody minds as long as there is room");
    residency_trim(&residency, full + MIB);
    residency_leave(&residency, map + 4 * MIB + 100, 8 * MIB);
    cr_expect_leq(file_bytes() + 7 * MIB, full);
    cr_expect_geq(file_bytes() + 13 * MIB, full, "what was not named stays, huge pages at the edges aside");
    read_all();
    cr_expect_geq(file_bytes() + MIB, full);
}

Test(residency, all_of_it_leaves_above_the_bound_only)
{
    struct residency residency = residency_find(map);
    read_all();
    uint64_t full = file_bytes();
    residency_trim(&residency, full + MIB);
    cr_expect_geq(file_bytes() + MIB, full);
    residency_trim(&residency, full - MIB);
    cr_expect_leq(file_bytes() + 15 * MIB, full);
    read_all();
}

Test(residency, memory_of_others_is_never_touched)
{
    struct residency residency = residency_find(map), nothing = residency_find(NULL);
    char *heap = malloc(MIB);
    memset(heap, 'x', MIB);
    cr_expect_null(nothing.begin);
    residency_trim(&residency, file_bytes() + 1);
    residency_leave(&residency, heap, MIB);
    residency_leave(&residency, map + BYTES - 100, MIB);
    residency_leave(&nothing, map, MIB);
    residency_trim(&nothing, 0);
    for (size_t i = 0; i < MIB; i++)
        cr_assert_eq(heap[i], 'x');
    free(heap);
    cr_expect_null(residency_find(&residency).begin, "a stack is no file");
}
