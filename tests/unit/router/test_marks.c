/* Goal: what a reader keeps is never contradicted by a write that it could have known of.
 * Method: one slot that holds a number which writers change: every interleaving of two writes and one read, step by step; then threads
 * (under tsan, too), where a reader must never see less than what was acknowledged before it asked. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>

#include "marks.h"

#define SLOT 3u

Test(marks, none_for_no_slots)
{
    cr_expect_null(marks_new(0, 7));
}

Test(marks, slots_are_within_the_table_and_the_same_each_time)
{
    struct marks *marks = marks_new(1000, 7);
    for (unsigned i = 0; i < 10000; i++) {
        uint64_t hash = marks_hash(marks, kv_slice(&i, sizeof i));
        cr_assert_lt(marks_slot(marks, hash), 1024);
        cr_assert_eq(hash, marks_hash(marks, kv_slice(&i, sizeof i)));
    }
    marks_free(&marks);
    cr_expect_null(marks);
}

Test(marks, a_slot_is_quiet_before_and_after_but_not_during_a_write)
{
    struct marks *marks = marks_new(8, 7);
    uint64_t before = marks_now(marks), word = 0, later = 0;
    cr_expect(marks_quiet(marks, SLOT, before, &word));
    uint64_t one = marks_begin(marks, SLOT);
    cr_expect_not(marks_unchanged(marks, SLOT, word));
    cr_expect_not(marks_quiet(marks, SLOT, marks_now(marks), &later));
    uint64_t two = marks_begin(marks, SLOT);
    cr_expect_eq(marks_end(marks, SLOT, two), 0);
    cr_expect_not(marks_quiet(marks, SLOT, marks_now(marks), &later), "one of two writers is still there");
    cr_expect_eq(marks_end(marks, SLOT, one), 0);
    cr_expect_not(marks_unchanged(marks, SLOT, word));
    cr_expect_not(marks_quiet(marks, SLOT, before, &later), "a write came between");
    cr_expect(marks_quiet(marks, SLOT, marks_now(marks), &later));
    cr_expect(marks_unchanged(marks, SLOT, later));
    cr_expect(marks_quiet(marks, SLOT + 1, before, &word), "another slot");
    marks_free(&marks);
}

Test(marks, a_writer_knows_the_word_only_if_nobody_else_wrote_meanwhile)
{
    struct marks *marks = marks_new(8, 7);
    uint64_t alone = marks_end(marks, SLOT, marks_begin(marks, SLOT));
    cr_expect_neq(alone, 0);
    cr_expect(marks_unchanged(marks, SLOT, alone));
    uint64_t first = marks_begin(marks, SLOT);
    cr_expect_eq(marks_end(marks, SLOT, marks_begin(marks, SLOT)), 0, "the first one is there");
    cr_expect_eq(marks_end(marks, SLOT, first), 0, "another one came and went");
    cr_expect_not(marks_unchanged(marks, SLOT, alone));
    uint64_t here = marks_begin(marks, SLOT), there = marks_begin(marks, SLOT + 1);
    cr_expect_neq(marks_end(marks, SLOT + 1, there), 0, "another slot is no matter");
    cr_expect_neq(marks_end(marks, SLOT, here), 0);
    marks_free(&marks);
}

/* What is kept of others in the slot stays true, but only if nobody else wrote there. */
Test(marks, what_was_not_there_before_changes_nothing_that_is_kept)
{
    struct marks *marks = marks_new(8, 7);
    uint64_t first = marks_end_traceless(marks, SLOT, marks_begin(marks, SLOT)), before = marks_now(marks), word;
    cr_expect_neq(first, 0, "of a slot that was never written in, too");
    uint64_t begun = marks_begin(marks, SLOT);
    cr_expect_not(marks_unchanged(marks, SLOT, first), "not meanwhile");
    cr_expect_eq(marks_end_traceless(marks, SLOT, begun), first);
    cr_expect(marks_unchanged(marks, SLOT, first));
    cr_expect(marks_quiet(marks, SLOT, before, &word));
    uint64_t here = marks_begin(marks, SLOT), there = marks_begin(marks, SLOT);
    cr_expect_eq(marks_end_traceless(marks, SLOT, there), 0, "another one is there");
    cr_expect_eq(marks_end_traceless(marks, SLOT, here), 0, "another one came and went");
    cr_expect_not(marks_unchanged(marks, SLOT, first));
    marks_free(&marks);
}

Test(marks, too_many_writers_silence_a_slot_for_good)
{
    struct marks *marks = marks_new(8, 7);
    uint64_t word;
    for (unsigned i = 0; i < MARKS_WRITERS_MAX + 5; i++)
        marks_begin(marks, SLOT);
    for (unsigned i = 0; i < MARKS_WRITERS_MAX + 5; i++)
        cr_assert_eq(marks_end(marks, SLOT, 0), 0);
    cr_expect_not(marks_quiet(marks, SLOT, marks_now(marks), &word));
    cr_expect(marks_quiet(marks, SLOT + 1, marks_now(marks), &word));
    marks_free(&marks);
}

/* ---- all interleavings -------------------------------------------------------------------------------------------- */

/* A write: mark, change the shard, (acknowledge and) end; what it wrote is kept when it was alone. The change becomes visible somewhere
 * between begin and end. A read: take the time, look at the shard, keep. What is kept is looked up again and again. 0 is nothing: the
 * write that finds it ends as one of something new, and a read of it keeps nothing. */
enum step { WRITER_A, WRITER_B, READER, ACTORS };

struct kept {
    uint64_t word;
    unsigned value;
    bool is_set;
};

struct world {
    struct marks *marks;
    unsigned done[ACTORS];
    unsigned value; /* at the shard */
    uint64_t since;
    uint64_t begun[ACTORS];
    bool creates[ACTORS];
    struct kept kept[ACTORS];
};

static void check_cached(const struct world *world)
{
    for (unsigned i = 0; i < ACTORS; i++) {
        const struct kept *kept = &world->kept[i];
        if (kept->is_set && marks_unchanged(world->marks, SLOT, kept->word))
            cr_assert_eq(kept->value, world->value, "a kept answer says %u, the shard %u", kept->value, world->value);
    }
}

static void take_step(struct world *world, enum step actor)
{
    unsigned step = world->done[actor]++;
    struct kept *kept = &world->kept[actor];
    if (actor == READER && step == 0) {
        world->since = marks_now(world->marks);
    } else if (actor == READER && step == 1) {
        kept->value = world->value;
    } else if (actor == READER) {
        kept->is_set = kept->value != 0 && marks_quiet(world->marks, SLOT, world->since, &kept->word);
    } else if (step == 0) {
        world->begun[actor] = marks_begin(world->marks, SLOT);
    } else if (step == 1) {
        world->creates[actor] = world->value == 0;
        kept->value = ++world->value;
    } else {
        kept->word = world->creates[actor] ? marks_end_traceless(world->marks, SLOT, world->begun[actor])
                                           : marks_end(world->marks, SLOT, world->begun[actor]);
        kept->is_set = kept->word != 0;
    }
    check_cached(world);
}

static unsigned kept_count[ACTORS];

/* The slot was written in before: only then does a write leave its word as it was. */
static void interleave_from(unsigned value, const enum step *order, unsigned count)
{
    struct world world = {.marks = marks_new(8, 7), .value = value};
    marks_end(world.marks, SLOT, marks_begin(world.marks, SLOT));
    for (unsigned i = 0; i < count; i++)
        take_step(&world, order[i]);
    for (unsigned i = 0; i < ACTORS; i++)
        kept_count[i] += world.kept[i].is_set;
    marks_free(&world.marks);
}

static void interleave(const enum step *order, unsigned count)
{
    interleave_from(0, order, count);
    interleave_from(1, order, count);
}

static unsigned try_all(enum step *order, unsigned count, unsigned left[ACTORS])
{
    unsigned runs = 0;
    bool end = true;
    for (unsigned actor = 0; actor < ACTORS; actor++) {
        if (left[actor] == 0)
            continue;
        end = false;
        left[actor]--;
        order[count] = (enum step)actor;
        runs += try_all(order, count + 1, left);
        left[actor]++;
    }
    if (end)
        interleave(order, count);
    return end ? 1 : runs;
}

Test(marks, every_interleaving_of_two_writes_and_a_read)
{
    enum step order[9];
    unsigned left[ACTORS] = {3, 3, 3};
    cr_expect_eq(try_all(order, 0, left), 1680); /* 9! / (3! 3! 3!) */
    for (unsigned i = 0; i < ACTORS; i++)
        cr_expect_gt(kept_count[i], 10, "some meet no other write and are kept");
}

/* ---- threads (tsan) ----------------------------------------------------------------------------------------------- */

enum { WRITERS = 3, READERS = 2, WRITES = 20000, CELLS = 4 };

static struct {
    struct marks *marks;
    _Atomic unsigned values[CELLS];       /* the shard */
    _Atomic unsigned acknowledged[CELLS]; /* what clients know */
    atomic_uint writing;
    atomic_uint hits;
} shared;

static void *write_much(void *arg)
{
    unsigned cell = (unsigned)(uintptr_t)arg;
    for (unsigned i = 0; i < WRITES; i++) {
        cell = (cell + 1) % CELLS;
        uint64_t begun = marks_begin(shared.marks, cell);
        unsigned value = atomic_fetch_add(&shared.values[cell], 1) + 1;
        uint64_t word = marks_end(shared.marks, cell, begun);
        unsigned now = atomic_load(&shared.values[cell]);
        if (word != 0 && marks_unchanged(shared.marks, cell, word))
            cr_assert(now == value || !marks_unchanged(shared.marks, cell, word), "it was alone");
        unsigned known = atomic_load(&shared.acknowledged[cell]);
        while (known < value && !atomic_compare_exchange_weak(&shared.acknowledged[cell], &known, value))
            ;
    }
    shared.writing--;
    return NULL;
}

static void *read_much(void *arg)
{
    struct {
        unsigned value;
        uint64_t word;
        bool kept;
    } cached[CELLS] = {0};
    (void)arg;
    for (unsigned i = 0; shared.writing > 0 || i < CELLS * 10; i++) {
        unsigned cell = i % CELLS, known = atomic_load(&shared.acknowledged[cell]);
        if (cached[cell].kept && marks_unchanged(shared.marks, cell, cached[cell].word)) {
            cr_assert_geq(cached[cell].value, known);
            shared.hits++;
            continue;
        }
        uint64_t since = marks_now(shared.marks);
        cached[cell].value = atomic_load(&shared.values[cell]);
        cached[cell].kept = marks_quiet(shared.marks, cell, since, &cached[cell].word);
    }
    return NULL;
}

Test(marks, threads_never_see_less_than_was_acknowledged)
{
    pthread_t threads[WRITERS + READERS];
    shared.marks = marks_new(CELLS, 7);
    shared.writing = WRITERS;
    for (uintptr_t i = 0; i < WRITERS + READERS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, i < WRITERS ? write_much : read_much, (void *)i), 0);
    for (unsigned i = 0; i < WRITERS + READERS; i++)
        pthread_join(threads[i], NULL);
    unsigned sum = 0;
    for (unsigned i = 0; i < CELLS; i++)
        sum += shared.values[i];
    cr_expect_eq(sum, WRITERS * WRITES);
    cr_expect_gt(shared.hits, 0);
    marks_free(&shared.marks);
}
