/* Goal: slots are lent to one at a time and stay as they are until they are back; the memory has a descriptor that nobody can shorten,
 * outlives its link for as long as somebody sends from it, and costs nothing while it is idle.
 * Method: the arena alone; another mapping of its descriptor is the shard's. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arena.h"
#include "arena_memory.h"

static struct arena *make(uint8_t **shards)
{
    struct body_file *file = NULL;
    struct arena *arena = arena_new(&file);
    cr_assert_not_null(arena);
    *shards = mmap(NULL, KV_ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, body_file_fd(file), 0);
    cr_assert_neq(*shards, MAP_FAILED);
    body_file_free(&file);
    return arena;
}

Test(arena, lends_each_unit_to_one_and_the_first_first)
{
    uint8_t *shards;
    struct arena_slot slots[KV_ARENA_UNITS], more;
    struct arena *arena = make(&shards);
    for (unsigned i = 0; i < KV_ARENA_UNITS; i++) {
        cr_assert(arena_take(arena, 1 + i % KV_ARENA_UNIT_BYTES, &slots[i]));
        cr_expect(slots[i].first == i && slots[i].count == 1);
        shards[slots[i].first * KV_ARENA_UNIT_BYTES] = (uint8_t)i;
        cr_expect_eq(*arena_peek(&slots[i], 1).data, (uint8_t)i);
    }
    cr_expect_not(arena_take(arena, 1, &more));
    arena_give_back(&slots[5]);
    cr_expect_null(slots[5].arena);
    arena_give_back(&slots[5]); /* none: accepted */
    cr_expect_not(arena_take(arena, KV_ARENA_UNIT_BYTES + 1, &more), "one unit is not enough");
    cr_assert(arena_take(arena, KV_ARENA_UNIT_BYTES, &slots[5]));
    cr_expect_eq(slots[5].first, 5);
    for (unsigned i = 0; i < KV_ARENA_UNITS; i++)
        arena_give_back(&slots[i]);
    arena_free(&arena);
    cr_expect_null(arena);
    arena_free(&arena);
    munmap(shards, KV_ARENA_BYTES);
}

/* Slots that are side by side share no byte, whatever was given back between them. */
Test(arena, takes_runs_as_long_as_their_bytes)
{
    uint8_t *shards;
    struct arena_slot a, b, c, d;
    struct arena *arena = make(&shards);
    cr_assert(arena_take(arena, 3 * KV_ARENA_UNIT_BYTES, &a));
    cr_assert(arena_take(arena, 3 * KV_ARENA_UNIT_BYTES + 1, &b));
    cr_expect(a.first == 0 && a.count == 3 && b.first == 3 && b.count == 4);
    cr_expect(arena_fits(&b, 4 * KV_ARENA_UNIT_BYTES) && !arena_fits(&b, 4 * KV_ARENA_UNIT_BYTES + 1));
    arena_give_back(&a);
    cr_assert(arena_take(arena, KV_SLOT_BYTES_MAX, &c));
    cr_expect_eq(c.first, 7, "it does not fit before");
    cr_assert(arena_take(arena, 2 * KV_ARENA_UNIT_BYTES, &d));
    cr_expect_eq(d.first, 0);
    arena_give_back(&b);
    arena_give_back(&c);
    arena_give_back(&d);
    cr_assert(arena_take(arena, KV_SLOT_BYTES_MAX, &a));
    cr_expect_eq(a.first, 0);
    arena_give_back(&a);
    arena_free(&arena);
    munmap(shards, KV_ARENA_BYTES);
}

Test(arena, does_not_lend_its_last_units)
{
    uint8_t *shards;
    struct arena_slot taken, lent[KV_ARENA_UNITS] = {{0}}, none = {0};
    struct arena *arena = make(&shards);
    unsigned count = 0;
    while (arena_take(arena, 2 * KV_ARENA_UNIT_BYTES, &taken) && arena_lend(&taken, &lent[count])) {
        cr_expect_null(taken.arena);
        count++;
    }
    cr_expect_eq(2 * count, KV_ARENA_UNITS - ARENA_SPARE_UNITS);
    cr_expect_not_null(taken.arena, "what is not lent is still the caller's");
    cr_expect_not(arena_lend(&none, &lent[count]));
    arena_give_back(&taken);
    while (count > 0)
        arena_give_back(&lent[--count]);
    arena_free(&arena);
    munmap(shards, KV_ARENA_BYTES);
}

/* The link broke while a client reads; ASan would see a read of what is unmapped as a fault. */
Test(arena, lasts_until_its_last_slot_is_back)
{
    uint8_t *shards;
    struct arena_slot slot;
    struct arena *arena = make(&shards);
    cr_assert(arena_take(arena, 4, &slot));
    memcpy(shards + slot.first * KV_ARENA_UNIT_BYTES, "sent", 4);
    munmap(shards, KV_ARENA_BYTES); /* the shard has died */
    arena_free(&arena);
    cr_expect_null(arena);
    cr_expect(kv_slice_equal(arena_peek(&slot, 4), kv_slice_text("sent")));
    arena_give_back(&slot);
    cr_expect_null(slot.arena);
}

Test(arena, is_sealed)
{
    struct body_file *file;
    struct arena *arena = arena_new(&file);
    int fd = body_file_fd(file);
    cr_expect_neq(ftruncate(fd, 4096), 0);
    cr_expect_neq(ftruncate(fd, 2 * (off_t)KV_ARENA_BYTES), 0);
    cr_expect_neq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0, "nor can a shard keep another one from it");
    body_file_free(&file);
    arena_free(&arena);
}

static blkcnt_t pages_of(const struct body_file *file)
{
    struct stat status;
    cr_assert_eq(fstat(body_file_fd(file), &status), 0);
    return status.st_blocks;
}

Test(arena, has_no_pages_before_it_is_used_nor_after_a_trim)
{
    struct body_file *file;
    struct arena_slot slot;
    struct arena *arena = arena_new(&file);
    cr_expect_eq(pages_of(file), 0);
    cr_assert(arena_take(arena, 4, &slot));
    cr_assert_eq(pwrite(body_file_fd(file), "x", 1, (off_t)slot.first * KV_ARENA_UNIT_BYTES), 1);
    arena_trim(arena);
    cr_expect_eq(*arena_peek(&slot, 1).data, 'x', "somebody has it");
    cr_expect_gt(pages_of(file), 0);
    arena_give_back(&slot);
    arena_trim(arena);
    cr_expect_eq(pages_of(file), 0);
    arena_trim(NULL);
    body_file_free(&file);
    arena_free(&arena);
}
