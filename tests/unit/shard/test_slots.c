/* Goal: a shard writes into nothing that could vanish under it. Method: descriptors that a router would never send. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "slots.h"

#define BYTES ((off_t)KV_ARENA_BYTES)

static enum kv_err map_file(off_t bytes, int seals, uint8_t **out)
{
    int fd = memfd_create("arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, bytes), 0);
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    enum kv_err err = slots_map(fd, out);
    close(fd);
    return err;
}

Test(slots, of_a_sealed_file_of_their_size_are_mapped)
{
    uint8_t *slots = NULL;
    cr_assert_eq(map_file(BYTES, F_SEAL_SHRINK, &slots), KV_OK);
    slots_at(slots, KV_ARENA_UNITS - 1)[KV_ARENA_UNIT_BYTES - 1] = 1;
    cr_expect_eq(slots[BYTES - 1], 1);
    slots_unmap(&slots);
    cr_expect_null(slots);
    slots_unmap(&slots);
}

Test(slots, of_anything_else_are_refused)
{
    uint8_t *slots = NULL;
    cr_expect_eq(map_file(BYTES, 0, &slots), KV_INVALID, "it could become shorter");
    cr_expect_eq(map_file(BYTES, F_SEAL_GROW, &slots), KV_INVALID);
    cr_expect_eq(map_file(BYTES - 1, F_SEAL_SHRINK, &slots), KV_INVALID);
    cr_expect_eq(map_file(BYTES + 1, F_SEAL_SHRINK, &slots), KV_INVALID);
    cr_expect_eq(map_file(BYTES, F_SEAL_SHRINK | F_SEAL_WRITE, &slots), KV_NO_SPACE, "it cannot be written to");
    int pipe_ends[2];
    cr_assert_eq(pipe2(pipe_ends, O_CLOEXEC), 0);
    cr_expect_eq(slots_map(pipe_ends[0], &slots), KV_INVALID, "of a kind that knows no seals");
    cr_expect_null(slots);
}
