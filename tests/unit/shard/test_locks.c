/* Goal: locks are fair, cannot deadlock when keys are taken in order, and never outlive their transaction.
 * Method: locks.h alone; grants are written down as they come. A seeded crowd at the end. */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "kv/buf.h"
#include "locks.h"

struct grants {
    struct locks *locks;
    uint64_t txn_ids[4096];
    uint64_t sessions[4096];
    uint64_t requests[4096];
    size_t count;
};

static void on_granted(void *ctx, uint64_t txn_id, uint64_t session, uint64_t request_id, const struct kv_slice *keys,
                       size_t count)
{
    struct grants *grants = ctx;
    for (size_t i = 0; i < count; i++)
        cr_assert_eq(locks_state(grants->locks, keys[i]).holder, txn_id, "granted without key %zu", i);
    cr_assert_lt(grants->count, sizeof grants->txn_ids / sizeof *grants->txn_ids);
    grants->txn_ids[grants->count] = txn_id;
    grants->sessions[grants->count] = session;
    grants->requests[grants->count++] = request_id;
}

static struct grants *grants_new(void)
{
    struct grants *grants = kv_alloc_zero(1, sizeof *grants);
    grants->locks = locks_new(on_granted, grants);
    return grants;
}

static void grants_free(struct grants *grants)
{
    locks_free(&grants->locks);
    free(grants);
}

/* Each letter of `keys` is a key. */
static void ask(struct grants *grants, uint64_t txn_id, uint64_t session, const char *keys)
{
    struct kv_slice slices[8];
    size_t count = strlen(keys);
    for (size_t i = 0; i < count; i++)
        slices[i] = kv_slice(keys + i, 1);
    locks_request(grants->locks, txn_id, session, txn_id * 10 + session, slices, count);
}

static uint64_t holder(const struct grants *grants, const char *key)
{
    return locks_state(grants->locks, kv_slice_text(key)).holder;
}

Test(locks, first_come_first_served)
{
    struct grants *grants = grants_new();
    ask(grants, 1, 7, "ab");
    ask(grants, 2, 7, "b");
    ask(grants, 3, 7, "b");
    cr_expect_eq(grants->count, 1u);
    cr_expect_eq(locks_waiting(grants->locks), 2u);
    cr_expect(locks_release(grants->locks, 1));
    cr_expect_eq(grants->txn_ids[1], 2u);
    cr_expect(locks_release(grants->locks, 2));
    cr_expect_eq(grants->txn_ids[2], 3u);
    cr_expect(locks_release(grants->locks, 3));
    cr_expect_eq(locks_count(grants->locks), 0u);
    cr_expect_eq(locks_waiting(grants->locks), 0u);
    grants_free(grants);
}

Test(locks, an_heir_goes_on_with_its_other_keys)
{
    struct grants *grants = grants_new();
    ask(grants, 1, 7, "a");
    ask(grants, 2, 7, "c");
    ask(grants, 3, 7, "abc"); /* waits for a, then for c */
    locks_release(grants->locks, 1);
    cr_expect_eq(holder(grants, "a"), 3u);
    cr_expect_eq(holder(grants, "b"), 3u);
    cr_expect_eq(grants->count, 2u);
    locks_release(grants->locks, 2);
    cr_expect_eq(grants->txn_ids[2], 3u);
    grants_free(grants);
}

Test(locks, who_asks_again_is_answered_again_on_the_new_session)
{
    struct grants *grants = grants_new();
    ask(grants, 1, 7, "a");
    ask(grants, 1, 8, "a");
    cr_expect_eq(grants->count, 2u);
    cr_expect_eq(grants->sessions[1], 8u);
    locks_session_closed(grants->locks, 7); /* moved: nothing to release */
    cr_expect_eq(holder(grants, "a"), 1u);
    ask(grants, 2, 8, "a");
    ask(grants, 2, 9, "a"); /* while it waits: once, on the last session */
    locks_release(grants->locks, 1);
    cr_expect_eq(grants->count, 3u);
    cr_expect_eq(grants->requests[2], 29u);
    grants_free(grants);
}

Test(locks, a_closed_session_gives_up_holders_and_waiters)
{
    struct grants *grants = grants_new();
    ask(grants, 1, 7, "ab");
    ask(grants, 2, 7, "a");
    ask(grants, 3, 8, "a");
    ask(grants, 4, 7, "c");
    locks_session_closed(grants->locks, 7);
    cr_expect_eq(holder(grants, "a"), 3u);
    cr_expect_eq(locks_count(grants->locks), 1u);
    cr_expect_not(locks_release(grants->locks, 2), "released before: it did not hold all any more");
    grants_free(grants);
}

Test(locks, an_intent_outlives_its_session)
{
    struct grants *grants = grants_new();
    ask(grants, 1, 7, "ab");
    locks_take_for_intent(grants->locks, 1, kv_slice_text("a"), true);
    locks_take_for_intent(grants->locks, 1, kv_slice_text("b"), false);
    locks_session_closed(grants->locks, 7);
    struct lock_state a = locks_state(grants->locks, kv_slice_text("a"));
    struct lock_state b = locks_state(grants->locks, kv_slice_text("b"));
    cr_expect(a.holder == 1 && a.writes);
    cr_expect(b.holder == 1 && !b.writes);
    cr_expect(locks_release(grants->locks, 1));
    ask(grants, 2, 7, "a");
    cr_expect_not(locks_state(grants->locks, kv_slice_text("a")).writes, "the next holder has written nothing yet");
    grants_free(grants);
}

/* It is what its holder was told, and the row may be another by the time that the next one holds it. */
Test(locks, a_version_goes_with_its_holder)
{
    struct grants *grants = grants_new();
    ask(grants, 1, 7, "a");
    ask(grants, 2, 7, "a");
    cr_expect_not(locks_state(grants->locks, kv_slice_text("a")).has_version);
    locks_set_version(grants->locks, kv_slice_text("a"), 0);
    struct lock_state told = locks_state(grants->locks, kv_slice_text("a"));
    cr_expect(told.has_version && told.version == 0, "a row that is not there has one too");
    locks_set_version(grants->locks, kv_slice_text("a"), 5);
    locks_take_for_intent(grants->locks, 1, kv_slice_text("a"), true);
    cr_expect_eq(locks_state(grants->locks, kv_slice_text("a")).version, 5u);
    locks_release(grants->locks, 1);
    struct lock_state passed = locks_state(grants->locks, kv_slice_text("a"));
    cr_expect(passed.holder == 2 && !passed.has_version);
    locks_release(grants->locks, 2);
    cr_expect_eq(locks_state(grants->locks, kv_slice_text("a")).holder, 0u);
    grants_free(grants);
}

Test(locks, a_release_says_whether_all_was_held)
{
    struct grants *grants = grants_new();
    ask(grants, 1, 7, "b");
    ask(grants, 2, 7, "ab");
    cr_expect_not(locks_release(grants->locks, 2), "it waits for b");
    cr_expect_not(locks_release(grants->locks, 3), "nobody has heard of it");
    cr_expect(locks_release(grants->locks, 1));
    cr_expect_eq(locks_count(grants->locks), 0u);
    grants_free(grants);
}

/* 200 transactions over 6 keys in ascending order, ended in random order: every one gets its turn, exactly once. */
Test(locks, a_crowd_cannot_deadlock)
{
    struct grants *grants = grants_new();
    unsigned seed = 5;
    bool ended[201] = {false};
    for (uint64_t txn_id = 1; txn_id <= 200; txn_id++) {
        char keys[8] = "";
        size_t count = 0;
        for (char key = 'a'; key <= 'f'; key++) {
            if (rand_r(&seed) % 3 == 0)
                keys[count++] = key;
        }
        if (count == 0)
            keys[count++] = 'a';
        ask(grants, txn_id, 7, keys);
    }
    for (unsigned left = 200; left > 0; left--) {
        size_t ready[200], count = 0;
        for (size_t i = 0; i < grants->count; i++) {
            if (!ended[grants->txn_ids[i]])
                ready[count++] = i;
        }
        cr_assert_gt(count, 0u, "deadlock with %u left", left);
        uint64_t txn_id = grants->txn_ids[ready[(size_t)rand_r(&seed) % count]];
        ended[txn_id] = true;
        cr_assert(locks_release(grants->locks, txn_id));
    }
    cr_expect_eq(grants->count, 200u);
    cr_expect_eq(locks_count(grants->locks), 0u);
    grants_free(grants);
}
