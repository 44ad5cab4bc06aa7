/* Goal: a shard's half of every transaction, one step at a time: votes, decisions, references, and the same state after a replay.
 * Method: the core alone (core_rig.h): messages in, answers and records out. What happens when steps fall together
 * otherwise is the simulation's (tests/sim). */
#include "core_rig.h"

#include <stdio.h>
#include <stdlib.h>

#include "intents.h"
#include "rows.h"

Test(core, a_transaction_of_one_shard_is_one_record)
{
    struct core_rig *rig = core_rig_new();
    uint64_t refs;
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 5, rig_set("k", 0, 'A'), rig_add('A')), KV_OK);
    cr_expect_eq(rig->count, 1u);
    cr_expect_eq(rig->position, 1u, "the vote waits for its record");
    cr_expect_eq(rig_read(rig, "k", &refs), 5u);
    cr_expect_eq(refs, 1u);
    cr_expect_eq(rig->position, 1u, "so does whoever sees the row");
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 5, rig_set("k", 0, 'A'), rig_add('A')), KV_OK, "asked again");
    cr_expect_eq(rig->count, 1u, "it is not done again");
    cr_expect_eq(rig_stats(rig).objects, 1u);
    core_rig_free(rig);
}

Test(core, a_vote_shows_nothing_until_it_is_decided)
{
    struct core_rig *rig = core_rig_new();
    cr_expect_eq(RIG_PROPOSE(rig, PREPARE, 5, rig_set("k", 0, 'A'), rig_add('A')), KV_OK);
    cr_expect_eq(rig->position, 1u);
    cr_expect_eq(rig_read(rig, "k", NULL), UINT64_MAX, "a read of it waits");
    cr_expect_eq(rig_read(rig, "other", NULL), 0u, "no other does");
    cr_expect_eq(rig_stats(rig).parked_reads, 1u);
    rig_say_id(rig, KV_MSG_COMMIT, 5);
    cr_expect_eq(rig_err(rig), KV_OK);
    cr_expect_eq(rig->position, 2u, "the router may forget it when that is durable");
    cr_expect_eq(rig_read(rig, "k", NULL), 5u);
    cr_expect_leq(rig->position, 1u, "all votes were durable: nobody waits for the decision");
    struct core_stats stats = rig_stats(rig);
    cr_expect_eq(stats.parked_reads + stats.locks + stats.intents, 0u);
    cr_expect_eq(stats.done, 1u);
    core_rig_free(rig);
}

Test(core, an_abort_leaves_no_trace)
{
    struct core_rig *rig = core_rig_new();
    RIG_PROPOSE(rig, PREPARE, 5, rig_set("k", 0, 'A'), rig_add('A'));
    rig_say_id(rig, KV_MSG_ABORT, 5);
    cr_expect_eq(rig_err(rig), KV_OK);
    cr_expect_eq(rig_read(rig, "k", NULL), 0u);
    struct core_stats stats = rig_stats(rig);
    cr_expect_eq(stats.objects + stats.stored_bytes + stats.keys + stats.locks + stats.intents + stats.done, 0u);
    rig_say_id(rig, KV_MSG_ABORT, 5);
    cr_expect_eq(rig_err(rig), KV_OK, "again is no error");
    core_rig_free(rig);
}

Test(core, a_changed_row_is_a_conflict)
{
    struct core_rig *rig = core_rig_new();
    RIG_PROPOSE(rig, APPLY, 5, rig_set("k", 0, 'A'), rig_add('A'));
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 6, rig_set("k", 0, 'B'), rig_add('B')), KV_CONFLICT);
    cr_expect_eq(RIG_PROPOSE(rig, PREPARE, 7, rig_set("k", 5, 'B'), rig_add('B'), rig_drop('A')), KV_OK);
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 8, rig_set("k", 5, 'C'), rig_add('C')), KV_CONFLICT, "it is promised");
    cr_expect_eq(rig_stats(rig).conflicts, 2u);
    core_rig_free(rig);
}

Test(core, a_content_lives_as_long_as_its_references)
{
    struct core_rig *rig = core_rig_new();
    uint64_t refs;
    RIG_PROPOSE(rig, APPLY, 5, rig_set("a", 0, 'A'), rig_add('A'));
    RIG_PROPOSE(rig, APPLY, 6, rig_set("b", 0, 'A'), rig_add('A'));
    rig_read(rig, "a", &refs);
    cr_expect_eq(refs, 2u);
    cr_expect_eq(rig_stats(rig).objects, 1u);
    RIG_PROPOSE(rig, APPLY, 7, rig_clear("a", 5), rig_drop('A'));
    cr_expect_eq(rig_stats(rig).objects, 1u);
    RIG_PROPOSE(rig, APPLY, 8, rig_set("b", 6, 'B'), rig_drop('A'), rig_add('B'));
    struct core_stats stats = rig_stats(rig);
    cr_expect_eq(stats.objects, 1u);
    cr_expect_eq(stats.stored_bytes, 10u);
    cr_expect_eq(stats.keys, 1u);
    struct kv_op by_hash = rig_add('A');
    by_hash.has_bytes = false;
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 9, rig_set("c", 0, 'A'), by_hash), KV_STALE, "A is gone: send it");
    core_rig_free(rig);
}

/* The drop of the last reference and a vote that adds one cross each other. */
Test(core, a_promised_reference_keeps_the_content)
{
    struct core_rig *rig = core_rig_new();
    uint64_t refs;
    RIG_PROPOSE(rig, APPLY, 5, rig_set("a", 0, 'A'), rig_add('A'));
    RIG_PROPOSE(rig, PREPARE, 6, rig_set("b", 0, 'A'), rig_add('A'));
    RIG_PROPOSE(rig, APPLY, 7, rig_clear("a", 5), rig_drop('A'));
    rig_say_id(rig, KV_MSG_COMMIT, 6);
    cr_expect_eq(rig_read(rig, "b", &refs), 6u);
    cr_expect_eq(refs, 1u);
    cr_expect_eq(rig_stats(rig).objects, 1u);
    core_rig_free(rig);
}

/* Simulation, seed 102674: two drops of one settled reference, while the second one's COMMIT was still on its way. */
Test(core, no_reference_is_promised_to_two_drops)
{
    struct core_rig *rig = core_rig_new();
    RIG_PROPOSE(rig, APPLY, 5, rig_set("a", 0, 'A'), rig_add('A'));
    cr_expect_eq(RIG_PROPOSE(rig, PREPARE, 6, rig_add('A')),
                 KV_OK); /* of a key on another shard: decided, not told here */
    cr_expect_eq(RIG_PROPOSE(rig, PREPARE, 7, rig_drop('A')), KV_OK);
    cr_expect_eq(RIG_PROPOSE(rig, PREPARE, 8, rig_drop('A')), KV_CONFLICT);
    rig_say_id(rig, KV_MSG_COMMIT, 6);
    cr_expect_eq(RIG_PROPOSE(rig, PREPARE, 8, rig_drop('A')), KV_OK);
    rig_say_id(rig, KV_MSG_COMMIT, 8);
    rig_say_id(rig, KV_MSG_COMMIT, 7);
    cr_expect_eq(rig_stats(rig).objects, 0u);
    core_rig_free(rig);
}

Test(core, locks_are_granted_with_rows_and_released)
{
    struct core_rig *rig = core_rig_new();
    struct kv_buf body = {0};
    RIG_PROPOSE(rig, APPLY, 5, rig_set("b", 0, 'A'), rig_add('A'));
    kv_put_lock_begin(&body, 6, 2);
    kv_put_key(&body, kv_slice_text("a"));
    kv_put_key(&body, kv_slice_text("b"));
    cr_expect_eq(rig_say(rig, 1, KV_MSG_LOCK, &body), KV_OK);
    enum kv_err err;
    struct kv_list rows;
    bool present[2] = {true, false};
    struct kv_row row;
    cr_assert_eq(kv_get_locked(kv_buf_peek(&rig->answer), &err, &rows), KV_OK);
    cr_expect(kv_next_row(&rows, &present[0], &row) && kv_next_row(&rows, &present[1], &row));
    cr_expect(!present[0] && present[1] && row.txn_id == 5);
    cr_expect_eq(rig->position, 1u, "the row is shown when its record is durable");
    rig_say_id(rig, KV_MSG_RELEASE, 6);
    cr_expect_eq(rig_err(rig), KV_OK);
    rig_say_id(rig, KV_MSG_RELEASE, 6);
    cr_expect_eq(rig_err(rig), KV_CONFLICT, "they are not held any more");
    core_rig_free(rig);
}

static void lock_key(struct core_rig *rig, uint64_t session, uint64_t txn_id, const char *key)
{
    struct kv_buf body = {0};
    kv_put_lock_begin(&body, txn_id, 1);
    kv_put_key(&body, kv_slice_text(key));
    cr_assert_eq(rig_say(rig, session, KV_MSG_LOCK, &body), KV_OK);
}

/* The version that a lock was granted with stands for the row, and for no longer than the lock. */
Test(core, a_lock_knows_the_row_that_it_was_granted_with)
{
    struct core_rig *rig = core_rig_new();
    RIG_PROPOSE(rig, APPLY, 5, rig_set("k", 0, 'A'), rig_add('A'));
    lock_key(rig, 1, 6, "k");
    lock_key(rig, 1, 7, "k"); /* waits */
    cr_expect_eq(RIG_PROPOSE(rig, PREPARE, 6, rig_set("k", 0, 'B'), rig_add('B'), rig_drop('A')), KV_CONFLICT);
    cr_expect_eq(RIG_PROPOSE(rig, PREPARE, 6, rig_set("k", 5, 'B'), rig_add('B'), rig_drop('A')), KV_OK);
    rig_say_id(rig, KV_MSG_COMMIT, 6);
    cr_expect_eq(RIG_PROPOSE(rig, PREPARE, 7, rig_set("k", 5, 'C'), rig_add('C'), rig_drop('B')), KV_CONFLICT);
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 7, rig_clear("k", 6), rig_drop('B')), KV_OK);
    lock_key(rig, 2, 8, "k"); /* told that it is not there */
    core_session_closed(rig->core, 2);
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 9, rig_set("k", 0, 'D'), rig_add('D')), KV_OK);
    cr_expect_eq(RIG_PROPOSE(rig, PREPARE, 8, rig_set("k", 0, 'E'), rig_add('E')), KV_CONFLICT, "its lock was lost");
    core_rig_free(rig);
}

Test(core, keys_of_a_lock_come_in_order)
{
    struct core_rig *rig = core_rig_new();
    struct kv_buf body = {0};
    kv_put_lock_begin(&body, 6, 2);
    kv_put_key(&body, kv_slice_text("b"));
    kv_put_key(&body, kv_slice_text("a"));
    cr_expect_eq(rig_say(rig, 1, KV_MSG_LOCK, &body), KV_INVALID);
    core_rig_free(rig);
}

Test(core, a_full_disk_refuses_what_does_not_free)
{
    struct core_rig *rig = core_rig_new();
    RIG_PROPOSE(rig, APPLY, 5, rig_set("a", 0, 'A'), rig_add('A'));
    rig->full = true;
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 6, rig_set("b", 0, 'B'), rig_add('B')), KV_NO_SPACE);
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 7, rig_clear("a", 5), rig_drop('A')), KV_OK);
    cr_expect_eq(rig->count, 2u);
    core_rig_free(rig);
}

Test(core, writes_wait_for_room_in_memory)
{
    struct core_rig *rig = core_rig_new();
    rig->overlay_bytes_max = 200;
    rig_crash(rig, 0);
    RIG_PROPOSE(rig, APPLY, 5, rig_set("a", 0, 'A'), rig_add('A'));
    cr_expect(core_wants_freeze(rig->core, false));
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 6, rig_set("b", 0, 'B'), rig_add('B')), KV_ERR_COUNT, "no answer yet");
    cr_expect_eq(RIG_PROPOSE(rig, PREPARE, 7, rig_set("c", 0, 'B'), rig_add('B')), KV_ERR_COUNT);
    cr_expect_eq(rig_stats(rig).stalled, 2u);
    rig_say_id(rig, KV_MSG_ABORT, 7);
    cr_expect_eq(rig_stats(rig).stalled, 1u, "an aborted one must not come to life later");
    rig_apply(rig, rig_freeze(rig));
    cr_expect_eq(rig->type, KV_MSG_VOTE);
    cr_expect_eq(rig_err(rig), KV_OK);
    cr_expect_eq(rig_read(rig, "b", NULL), 6u);
    RIG_PROPOSE(rig, APPLY, 8, rig_set("d", 0, 'D'), rig_add('D'));
    core_tick(rig->core, 1000, 500, KV_OVERLOADED);
    cr_expect_eq(rig_stats(rig).stalled, 1u, "it waits since this first tick, not since the clock began");
    core_tick(rig->core, 1500, 500, KV_OVERLOADED);
    cr_expect_eq(rig_err(rig), KV_OVERLOADED, "not for ever");
    cr_expect_eq(rig_stats(rig).stalled, 0u);
    core_rig_free(rig);
}

/* A batch larger than what the small ones leave free was passed by for ever, and refused after its wait. */
Test(core, small_writes_do_not_pass_a_large_one_by)
{
    struct core_rig *rig = core_rig_new();
    char large[KV_KEY_BYTES_MAX];
    memset(large, 'l', sizeof large);
    large[sizeof large - 1] = '\0';
    RIG_PROPOSE(rig, APPLY, 5, rig_set("a", 0, 'A'), rig_add('A'));
    /* what is there now is too little for a freeze, and too much for the large one beside it */
    rig->overlay_bytes_max = 2 * rig_stats(rig).overlay_bytes + 2;
    rig_crash(rig, 0);
    RIG_PROPOSE(rig, APPLY, 5, rig_set("a", 0, 'A'), rig_add('A'));
    cr_expect_not(core_wants_freeze(rig->core, false), "there is room");
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 6, rig_set(large, 0, 'B'), rig_add('B')), KV_ERR_COUNT, "it does not fit");
    cr_expect(core_wants_freeze(rig->core, false), "somebody waits for the room");
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 7, rig_set("h", 0, 'C'), rig_add('C')), KV_ERR_COUNT, "behind the large one");
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 8, rig_clear("a", 5), rig_drop('A')), KV_OK, "what frees does not queue");
    rig_apply(rig, rig_freeze(rig));
    cr_expect_eq(rig_read(rig, large, NULL), 6u);
    rig_apply(rig, rig_freeze(rig));
    cr_expect_eq(rig_read(rig, "h", NULL), 7u);
    cr_expect_eq(rig_stats(rig).stalled, 0u);
    core_rig_free(rig);
}

/* A batch that needs the memory for itself, and deletes that put a row into every generation: it was refused after its wait. */
Test(core, deletes_do_not_pass_a_large_write_by_for_ever)
{
    struct core_rig *rig = core_rig_new();
    char large[KV_KEY_BYTES_MAX], key[2] = "a";
    memset(large, 'l', sizeof large);
    large[sizeof large - 1] = '\0';
    for (uint64_t id = 5; id < 10; id++, key[0]++)
        RIG_PROPOSE(rig, APPLY, id, rig_set(key, 0, 'A'), rig_add('A'));
    rig_apply(rig, rig_freeze(rig));
    rig->overlay_bytes_max = 3000;
    rig_crash(rig, rig->count);
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 20, rig_clear("a", 5), rig_drop('A')), KV_OK);
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 21, rig_set(large, 0, 'B'), rig_add('B')), KV_ERR_COUNT);
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 22, rig_clear("b", 6), rig_drop('A')), KV_OK, "deletes go first");
    struct core_generation *generation = rig_freeze(rig);
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 23, rig_clear("c", 7), rig_drop('A')), KV_OK);
    rig_apply(rig, generation);
    cr_expect_eq(rig_stats(rig).stalled, 1u, "the generation behind has a row, too");
    rig->full = true;
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 24, rig_clear("d", 8), rig_drop('A')), KV_OK, "a full disk needs it");
    rig->full = false;
    generation = rig_freeze(rig);
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 25, rig_clear("e", 9), rig_drop('A')), KV_ERR_COUNT, "its turn is over");
    rig_apply(rig, generation);
    cr_expect_eq(rig_read(rig, large, NULL), 21u);
    if (rig_stats(rig).stalled > 0)
        rig_apply(rig, rig_freeze(rig));
    cr_expect_eq(rig_read(rig, "e", NULL), 0u);
    cr_expect_eq(rig_stats(rig).stalled, 0u);
    core_rig_free(rig);
}

/* Frozen after each of the records in turn, crashed at the end: always the same shard. */
Test(core, a_replay_makes_the_same_shard)
{
    for (unsigned frozen_after = 0; frozen_after <= 6; frozen_after++) {
        struct core_rig *rig = core_rig_new();
        for (unsigned step = 0; step <= 6; step++) {
            if (step == 1)
                RIG_PROPOSE(rig, APPLY, 5, rig_set("a", 0, 'A'), rig_add('A'));
            else if (step == 2)
                RIG_PROPOSE(rig, PREPARE, 6, rig_set("b", 0, 'A'), rig_add('A'));
            else if (step == 3)
                RIG_PROPOSE(rig, PREPARE, 7, rig_set("c", 0, 'C'), rig_add('C'));
            else if (step == 4)
                rig_say_id(rig, KV_MSG_COMMIT, 6);
            else if (step == 5)
                RIG_PROPOSE(rig, APPLY, 8, rig_set("a", 5, 'B'), rig_add('B'), rig_drop('A'));
            else if (step == 6)
                RIG_PROPOSE(rig, PREPARE, 9, rig_clear("b", 6), rig_drop('A'));
            if (step == frozen_after)
                rig_apply(rig, rig_freeze(rig));
        }
        struct core_stats before = rig_stats(rig);
        rig_crash(rig, rig->count);
        struct core_stats after = rig_stats(rig);
        cr_expect_eq(after.keys, before.keys, "frozen after %u", frozen_after);
        cr_expect_eq(after.objects, before.objects, "frozen after %u", frozen_after);
        cr_expect_eq(after.stored_bytes, before.stored_bytes, "frozen after %u", frozen_after);
        cr_expect_eq(after.intents, 2u, "frozen after %u", frozen_after);
        cr_expect_eq(after.done, before.done, "frozen after %u", frozen_after);
        cr_expect_eq(rig_read(rig, "a", NULL), 8u);
        cr_expect_eq(rig_read(rig, "b", NULL), UINT64_MAX);
        rig_say_id(rig, KV_MSG_COMMIT, 9);
        rig_say_id(rig, KV_MSG_ABORT, 7);
        after = rig_stats(rig);
        cr_expect_eq(after.objects, 1u, "only B is left, frozen after %u", frozen_after);
        cr_expect_eq(after.keys, 1u, "frozen after %u", frozen_after);
        core_rig_free(rig);
    }
}

static size_t blobs_waiting(struct core_generation *generation)
{
    size_t count;
    free((void *)overlay_sorted(generation->rows, OVERLAY_BLOBS, &count));
    return count;
}

/* Their counts change while they wait, when they are applied, and when a vote on them is open; the bytes stay with them. */
Test(core, bytes_lie_in_the_row_of_a_small_content_and_beside_that_of_a_larger_one)
{
    struct core_rig *rig = core_rig_new();
    RIG_PROPOSE(rig, APPLY, 5, rig_set("a", 0, 'A'), rig_add('A'), rig_set("b", 0, 'B'), rig_add_larger('B'));
    for (unsigned round = 0; round < 3; round++) { /* waiting, applied, carried over from applied rows */
        uint64_t id = 10 + round * 10;
        cr_expect_eq(rig_read_bytes(rig, "a", 'A'), 10, "round %u", round);
        cr_expect_eq(rig_read_bytes(rig, "b", 'B'), RIG_LARGER_BYTES, "round %u", round);
        RIG_PROPOSE(rig, PREPARE, id, rig_set("c", 0, 'A'), rig_add('A'), rig_set("d", 0, 'B'), rig_add_larger('B'));
        rig_say_id(rig, KV_MSG_COMMIT, id);
        cr_expect_eq(rig_read_bytes(rig, "c", 'A'), 10, "round %u", round);
        cr_expect_eq(rig_read_bytes(rig, "d", 'B'), RIG_LARGER_BYTES, "round %u", round);
        RIG_PROPOSE(rig, APPLY, id + 1, rig_clear("c", id), rig_drop('A'), rig_clear("d", id), rig_drop('B'));
        struct core_generation *generation = rig_freeze(rig);
        cr_expect_eq(blobs_waiting(generation), round == 0 ? 1 : 0, "round %u: of the larger one, once", round);
        rig_apply(rig, generation);
        cr_expect_eq(rig_stats(rig).stored_bytes, 10 + RIG_LARGER_BYTES);
        if (round == 1)
            rig_crash(rig, rig->count);
    }
    core_rig_free(rig);
}

/* What a store of format 1 holds: small contents beside their rows. */
Test(core, a_small_content_may_lie_beside_its_row)
{
    struct core_rig *rig = core_rig_new();
    struct kv_op add = rig_add('A');
    struct kv_object old = {.size = 10, .stored_bytes = 10, .object_id = 7, .refs = 1}, now;
    uint8_t space[ROW_OBJECT_BYTES_MAX], id[8];
    uint64_t refs;
    RIG_PROPOSE(rig, APPLY, 5, rig_set("a", 0, 'A'), add);
    rig_apply(rig, rig_freeze(rig));
    overlay_put(rig->applied, OVERLAY_OBJECTS, kv_hash_slice(&add.hash), row_encode_object(&old, space), 0);
    overlay_put(rig->applied, OVERLAY_BLOBS, row_encode_id(7, id), add.bytes, 0);
    rig_crash(rig, rig->count);
    cr_expect_eq(rig_read_bytes(rig, "a", 'A'), 10);
    RIG_PROPOSE(rig, APPLY, 6, rig_set("b", 0, 'A'), add);
    cr_expect_eq(rig_read_bytes(rig, "b", 'A'), 10);
    rig_read(rig, "b", &refs);
    cr_expect_eq(refs, 2u);
    struct core_generation *generation = rig_freeze(rig);
    const struct overlay_row *row = overlay_get(generation->rows, OVERLAY_OBJECTS, kv_hash_slice(&add.hash));
    cr_assert_not_null(row);
    cr_assert_eq(row_decode_object(overlay_value(row), &now), KV_OK);
    cr_expect_eq(now.object_id, 7, "it stays where it is");
    rig_apply(rig, generation);
    RIG_PROPOSE(rig, APPLY, 7, rig_clear("a", 5), rig_drop('A'), rig_clear("b", 6), rig_drop('A'));
    RIG_PROPOSE(rig, APPLY, 8, rig_set("a", 0, 'A'), add);
    generation = rig_freeze(rig);
    row = overlay_get(generation->rows, OVERLAY_OBJECTS, kv_hash_slice(&add.hash));
    cr_assert_not_null(row);
    cr_assert_eq(row_decode_object(overlay_value(row), &now), KV_OK);
    cr_expect_eq(now.object_id, 0, "stored anew, it is its row");
    rig_apply(rig, generation);
    cr_expect_eq(rig_read_bytes(rig, "a", 'A'), 10);
    core_rig_free(rig);
}

static void say_forget(struct core_rig *rig, uint64_t from, uint64_t below, const uint64_t *open, size_t count)
{
    struct kv_buf body = {0};
    kv_put_forget_begin(&body, from, below, count);
    for (size_t i = 0; i < count; i++)
        kv_pack_uint(&body, open[i]);
    cr_expect_eq(rig_say(rig, 1, KV_MSG_FORGET, &body), KV_OK);
}

Test(core, a_report_names_intents_and_done_ids)
{
    struct core_rig *rig = core_rig_new();
    struct kv_buf body = {0};
    struct kv_list intents, done;
    uint64_t txn_id = 0, done_id = 0;
    kv_shard_set participants = 0;
    RIG_PROPOSE(rig, APPLY, 5, rig_set("a", 0, 'A'), rig_add('A'));
    RIG_PROPOSE(rig, PREPARE, 6, rig_set("b", 0, 'A'), rig_add('A'));
    kv_put_empty(&body);
    rig_say(rig, 1, KV_MSG_RECOVER, &body);
    cr_assert_eq(kv_get_report(kv_buf_peek(&rig->answer), &intents, &done), KV_OK);
    cr_expect_eq(rig->position, 2u, "a router decides by it: it must be durable");
    cr_expect(kv_next_report_intent(&intents, &txn_id, &participants) && txn_id == 6 && participants == 1);
    cr_expect(kv_next_uint(&done, &done_id) && done_id == 5);
    say_forget(rig, 0, 6, NULL, 0);
    cr_expect_eq(rig_stats(rig).done, 0u);
    cr_expect_eq(rig_stats(rig).intents, 1u);
    core_rig_free(rig);
}

static void begin_many(struct core_rig *rig, uint64_t first, unsigned count)
{
    char key[16];
    for (uint64_t id = first; id < first + count; id++) {
        snprintf(key, sizeof key, "k%u", (unsigned)id);
        cr_assert_eq(RIG_PROPOSE(rig, APPLY, id, rig_set(key, 0, 'A'), rig_add('A')), KV_OK);
    }
}

/* One transaction that is open for ever, because another shard hangs, must not keep the ids of all that come after it. */
Test(core, only_open_transactions_are_remembered)
{
    struct core_rig *rig = core_rig_new();
    static const uint64_t open[] = {12, 14, 1000};
    begin_many(rig, 10, 10);
    say_forget(rig, 11, 19, open, 3);
    cr_expect_eq(rig_err(rig), KV_OK);
    cr_expect_eq(rig->position, 11u, "said again only if this is lost");
    cr_expect_eq(rig_stats(rig).done, 4u, "10 is before, 19 behind, 12 and 14 are open");
    cr_expect_eq(rig->records[10].body.bytes, 6u, "1000 is nothing of this shard's");
    say_forget(rig, 11, 19, open, 3);
    cr_expect_eq(rig->count, 11u, "nothing to write down");
    cr_expect_eq(rig->position, 11u, "but what was written must be durable");
    rig_crash(rig, rig->count);
    cr_expect_eq(rig_stats(rig).done, 4u);
    rig_apply(rig, rig_freeze(rig));
    rig_crash(rig, rig->count);
    cr_expect_eq(rig_stats(rig).done, 4u);
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 12, rig_set("k12", 0, 'A'), rig_add('A')), KV_OK, "a vote that was lost");
    say_forget(rig, 0, 2000, NULL, 0);
    cr_expect_eq(rig_stats(rig).done, 0u);
    core_rig_free(rig);
}

/* Votes on `count` of the longest keys, from the one numbered `first` on. */
static enum kv_err propose_long_keys(struct core_rig *rig, uint64_t txn_id, size_t first, size_t count)
{
    struct kv_buf body = {0};
    uint8_t key[KV_KEY_BYTES_MAX] = {0};
    kv_put_prepare_begin(&body, txn_id, 3, count);
    for (size_t i = first; i < first + count; i++) {
        memcpy(key, &i, sizeof i);
        kv_put_op(&body, &(struct kv_op){.kind = KV_OP_CHECK, .key = kv_slice(key, sizeof key)});
    }
    cr_expect_eq(rig_say(rig, 1, KV_MSG_PREPARE, &body), KV_OK);
    return rig_err(rig);
}

/* What is open and done takes memory, of this shard and in LMDB's meta row: there is an end to it. */
Test(core, votes_no_when_too_much_is_open)
{
    struct core_rig *rig = core_rig_new();
    size_t half = INTENTS_BYTES_MAX / KV_KEY_BYTES_MAX / 2;
    cr_expect_eq(propose_long_keys(rig, 5, 0, half), KV_OK);
    cr_expect_eq(propose_long_keys(rig, 6, half, half), KV_OK, "one passes whatever it brings");
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 7, rig_set("a", 0, 'A'), rig_add('A')), KV_OVERLOADED);
    rig_say_id(rig, KV_MSG_ABORT, 5);
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 7, rig_set("a", 0, 'A'), rig_add('A')), KV_OK);
    core_rig_free(rig);
}

/* ---- staged contents ------------------------------------------------------------------------------------------- */

#define LARGE (KV_INLINE_BYTES_MAX + 16)

static uint64_t stage(struct core_rig *rig, char content)
{
    struct kv_buf body = {0};
    struct kv_msg_staged staged;
    kv_put_stage(&body, &(struct kv_msg_stage){rig_hash(content), LARGE, KV_CODEC_RAW, LARGE});
    cr_assert_eq(rig_say(rig, 1, KV_MSG_STAGE, &body), KV_OK);
    cr_assert_eq(kv_get_staged(kv_buf_peek(&rig->answer), &staged), KV_OK);
    return staged.object_id;
}

static void stage_data(struct core_rig *rig, uint64_t object_id)
{
    struct kv_buf body = {0}, bytes = {0};
    memset(kv_buf_reserve(&bytes, LARGE), 'L', LARGE);
    bytes.bytes = LARGE;
    kv_put_stage_data(&body, &(struct kv_msg_stage_data){object_id, 0, kv_buf_peek(&bytes)});
    cr_assert_eq(rig_say(rig, 1, KV_MSG_STAGE_DATA, &body), KV_OK);
    kv_buf_free(&bytes);
}

static struct kv_op add_staged(char content, uint64_t object_id)
{
    return (struct kv_op){.kind = KV_OP_ADD,
                          .hash = rig_hash(content),
                          .count = 1,
                          .size = LARGE,
                          .object_id = object_id,
                          .stored_bytes = LARGE};
}

Test(core, a_staged_content_is_adopted_when_it_is_durable)
{
    struct core_rig *rig = core_rig_new();
    uint64_t id = stage(rig, 'L');
    cr_expect_neq(id, 0u);
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 5, rig_set("a", 0, 'L'), add_staged('L', id)), KV_STALE, "no bytes yet");
    stage_data(rig, id);
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 6, rig_set("a", 0, 'L'), add_staged('L', id)), KV_STALE, "not durable yet");
    core_staged(rig->core, id, LARGE);
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 7, rig_set("a", 0, 'L'), add_staged('L', id)), KV_OK);
    cr_expect_eq(rig_stats(rig).stored_bytes, LARGE);
    core_session_closed(rig->core, 1);
    cr_expect_eq(rig->unstaged, 0u, "it is not a stage any more");
    core_rig_free(rig);
}

Test(core, a_piece_of_a_file_counts_as_its_bytes)
{
    struct core_rig *rig = core_rig_new();
    uint64_t id = stage(rig, 'L');
    struct kv_msg_stage_file piece = {.object_id = id, .bytes = kv_slice("index", 5), .file_bytes = LARGE - 4};
    struct kv_buf body = {0};
    kv_put_stage_file(&body, &piece);
    cr_expect_eq(rig_say(rig, 1, KV_MSG_STAGE_FILE, &body), KV_INVALID, "a byte too many");
    piece.file_bytes--;
    kv_put_stage_file(&body, &piece);
    cr_expect_eq(rig_say(rig, 1, KV_MSG_STAGE_FILE, &body), KV_OK);
    kv_put_stage_file(&body, &piece);
    cr_expect_eq(rig_say(rig, 1, KV_MSG_STAGE_FILE, &body), KV_OK);
    cr_expect_eq(rig_err(rig), KV_STALE, "it had all of it");
    core_staged(rig->core, id, LARGE);
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 7, rig_set("a", 0, 'L'), add_staged('L', id)), KV_OK);
    core_rig_free(rig);
}

Test(core, a_session_takes_its_stages_with_it)
{
    struct core_rig *rig = core_rig_new();
    uint64_t id = stage(rig, 'L');
    core_session_closed(rig->core, 1);
    cr_expect_eq(rig->unstaged, id);
    stage_data(rig, id);
    cr_expect_eq(rig_err(rig), KV_STALE);
    core_rig_free(rig);
}

/* Rows of a content that is overwritten again and again are few and small; on the disk each life of it waits for the applier. */
Test(core, dead_large_contents_are_worth_a_generation)
{
    struct core_rig *rig = core_rig_new();
    uint64_t txn_id = 5, lives = 0;
    for (; !core_wants_freeze(rig->core, false); lives++) {
        cr_assert_leq(lives * LARGE, CORE_DEAD_BYTES);
        uint64_t id = stage(rig, 'L');
        stage_data(rig, id);
        core_staged(rig->core, id, LARGE);
        cr_assert_eq(RIG_PROPOSE(rig, APPLY, txn_id, rig_set("a", 0, 'L'), add_staged('L', id)), KV_OK);
        cr_assert_eq(RIG_PROPOSE(rig, APPLY, txn_id + 1, rig_clear("a", txn_id), rig_drop('L')), KV_OK);
        txn_id += 2;
    }
    cr_expect_geq(lives * LARGE, CORE_DEAD_BYTES);
    rig_apply(rig, rig_freeze(rig));
    cr_expect_not(core_wants_freeze(rig->core, false), "they are counted once");
    core_rig_free(rig);
}

/* Simulation, seed 1286: ids of stages are given out again after a restart. */
Test(core, an_old_id_touches_no_other_content)
{
    struct core_rig *rig = core_rig_new();
    struct kv_op small = rig_add('S');
    RIG_PROPOSE(rig, APPLY, 5, rig_set("a", 0, 'S'), small);
    uint64_t id = stage(rig, 'L');
    small.has_bytes = false;
    small.object_id = id; /* was S's, before the shard died */
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 6, rig_set("b", 0, 'S'), small), KV_OK);
    cr_expect_eq(rig->unstaged, 0u);
    stage_data(rig, id);
    core_staged(rig->core, id, LARGE);
    cr_expect_eq(RIG_PROPOSE(rig, APPLY, 7, rig_set("c", 0, 'L'), add_staged('L', id)), KV_OK);
    core_rig_free(rig);
}

Test(core, broken_bodies_close_the_session)
{
    struct core_rig *rig = core_rig_new();
    for (int type = KV_MSG_READ; type <= KV_MSG_STATS; type++) {
        struct kv_buf body = {0};
        kv_pack_uint(&body, 1);
        cr_expect_eq(rig_say(rig, 1, (enum kv_msg)type, &body), KV_INVALID, "type %d", type);
    }
    cr_expect_eq(rig->count, 0u);
    core_rig_free(rig);
}
