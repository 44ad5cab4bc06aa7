/* Goal: what a dead router left is decided alike by whoever comes next: committed when every participant has it, aborted when one has
 * not, and not before all participants have spoken.
 * Method: recovery.h over real calls; the test writes the reports of three shards (txn_rig.h). */
#include "txn_rig.h"

#include "recovery.h"

#define EPOCH 9u

struct seen {
    struct txn_rig rig;
    struct recovery *recovery;
    unsigned recovered;
};

/* What one shard reports: transactions by their sequence in an epoch, 0 ends. */
struct told {
    uint64_t epoch;
    kv_shard_set participants;
    uint64_t intents[4];
    uint64_t done[4];
};

static void on_recovered(void *arg)
{
    ((struct seen *)arg)->recovered++;
}

static struct seen *begin(void)
{
    struct seen *seen = kv_alloc_zero(1, sizeof *seen);
    txn_rig_open(&seen->rig);
    seen->recovery = recovery_new(seen->rig.calls, RIG_SHARDS, EPOCH, on_recovered, seen);
    return seen;
}

static void end(struct seen *seen)
{
    cr_expect_eq(seen->recovered, 1u);
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        cr_expect_eq(calls_waiting(seen->rig.calls, i), 0u);
    recovery_free(&seen->recovery);
    txn_rig_close(&seen->rig);
    free(seen);
}

static void report(struct seen *seen, unsigned shard_index, const struct told *told)
{
    struct kv_buf body = {0};
    uint64_t request_id;
    size_t intents = 0, done = 0;
    cr_assert_eq(txn_rig_take(&seen->rig, shard_index, &request_id), KV_MSG_RECOVER);
    while (told->intents[intents] != 0)
        intents++;
    while (told->done[done] != 0)
        done++;
    kv_put_report_begin(&body, intents);
    for (size_t i = 0; i < intents; i++)
        kv_put_report_intent(&body, kv_txn_id(told->epoch, told->intents[i]), told->participants);
    kv_put_report_done(&body, done);
    for (size_t i = 0; i < done; i++)
        kv_pack_uint(&body, kv_txn_id(told->epoch, told->done[i]));
    txn_rig_answer(&seen->rig, shard_index, KV_MSG_REPORT, request_id, &body);
    kv_buf_free(&body);
}

static const struct told nothing = {0};

Test(recovery, nothing_in_doubt)
{
    struct seen *seen = begin();
    for (unsigned i = 0; i < RIG_SHARDS; i++) {
        cr_expect_eq(seen->recovered, 0u);
        report(seen, i, &nothing);
    }
    end(seen);
}

Test(recovery, prepared_everywhere_is_committed)
{
    struct seen *seen = begin();
    uint64_t request_id;
    report(seen, 0, &(struct told){EPOCH - 1, 3, {5}, {0}});
    cr_expect_eq(txn_rig_take(&seen->rig, 0, &request_id), 0, "shard 1 has not spoken");
    report(seen, 1, &(struct told){EPOCH - 1, 3, {5}, {0}});
    txn_rig_expect_done(&seen->rig, 0, KV_MSG_COMMIT);
    txn_rig_expect_done(&seen->rig, 1, KV_MSG_COMMIT);
    report(seen, 2, &nothing);
    end(seen);
}

Test(recovery, one_who_knows_nothing_aborts)
{
    struct seen *seen = begin();
    report(seen, 0, &(struct told){EPOCH - 1, 7, {5}, {0}});
    report(seen, 1, &(struct told){EPOCH - 1, 7, {5}, {0}});
    report(seen, 2, &nothing);
    cr_expect_eq(seen->recovered, 0u, "not before the decision has been carried out");
    txn_rig_expect_done(&seen->rig, 0, KV_MSG_ABORT);
    txn_rig_expect_done(&seen->rig, 1, KV_MSG_ABORT);
    end(seen);
}

Test(recovery, done_somewhere_is_committed_elsewhere)
{
    struct seen *seen = begin();
    uint64_t request_id;
    report(seen, 2, &nothing);
    report(seen, 0, &(struct told){EPOCH - 1, 3, {0}, {5}});
    report(seen, 1, &(struct told){EPOCH - 1, 3, {5}, {0}});
    txn_rig_expect_done(&seen->rig, 1, KV_MSG_COMMIT);
    cr_expect_eq(txn_rig_take(&seen->rig, 0, &request_id), 0, "it has done it");
    end(seen);
}

Test(recovery, our_own_transactions_are_left_alone)
{
    struct seen *seen = begin();
    uint64_t request_id;
    report(seen, 0, &(struct told){EPOCH, 3, {1}, {2}});
    report(seen, 1, &nothing);
    report(seen, 2, &nothing);
    cr_expect_eq(txn_rig_take(&seen->rig, 0, &request_id), 0);
    end(seen);
}

Test(recovery, a_shard_that_dies_is_asked_again)
{
    struct seen *seen = begin();
    uint64_t request_id = 0;
    cr_assert_eq(txn_rig_take(&seen->rig, 1, &request_id), KV_MSG_RECOVER);
    calls_link_down(seen->rig.calls, 1);
    report(seen, 0, &(struct told){EPOCH - 1, 3, {5}, {0}});
    report(seen, 2, &nothing);
    calls_link_up(seen->rig.calls, 1);
    report(seen, 1, &(struct told){EPOCH - 1, 3, {5}, {0}});
    cr_assert_eq(txn_rig_take(&seen->rig, 1, &request_id), KV_MSG_COMMIT);
    calls_link_down(seen->rig.calls, 1);
    calls_link_up(seen->rig.calls, 1);
    txn_rig_expect_done(&seen->rig, 1, KV_MSG_COMMIT);
    txn_rig_expect_done(&seen->rig, 0, KV_MSG_COMMIT);
    end(seen);
}

Test(recovery, is_freed_half_way)
{
    struct seen *seen = begin();
    report(seen, 0, &(struct told){EPOCH - 1, 1, {5}, {6}});
    recovery_free(&seen->recovery);
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        cr_expect_eq(calls_waiting(seen->rig.calls, i), 0u);
    txn_rig_close(&seen->rig);
    free(seen);
}
