/* router/recovery.c -- see recovery.h. */
#include "recovery.h"

#include <stdlib.h>
#include <uthash.h>

#include "forget.h"
#include "kv/log.h"
#include "wire/messages.h"

struct orphan;

/* A decision on its way to one shard. */
struct errand {
    struct orphan *orphan;
    struct call *call;
};

/* A transaction of an older epoch. */
struct orphan {
    struct recovery *recovery;
    uint64_t txn_id;
    kv_shard_set participants; /* empty until a shard reports an intent */
    kv_shard_set intents;
    bool decided;
    unsigned waiting;
    UT_hash_handle hh;
    struct errand errands[KV_SHARDS_MAX];
};

struct report {
    struct recovery *recovery;
    unsigned shard_index;
    struct call *call;
    uint64_t *done; /* ids, ascending */
    size_t done_count;
};

struct recovery {
    struct calls *calls;
    unsigned shard_count;
    uint64_t epoch;
    kv_shard_set reported;
    struct orphan *orphans; /* uthash; like what the reports hold, gone when every decision has been carried out */
    size_t open;
    bool done;
    void (*on_recovered)(void *arg);
    void *arg;
    struct report reports[KV_SHARDS_MAX];
};

static struct orphan *get_orphan(struct recovery *recovery, uint64_t txn_id)
{
    struct orphan *orphan = NULL;
    HASH_FIND(hh, recovery->orphans, &txn_id, sizeof txn_id, orphan);
    if (orphan != NULL)
        return orphan;
    orphan = kv_alloc_zero(1, sizeof *orphan);
    orphan->recovery = recovery;
    orphan->txn_id = txn_id;
    HASH_ADD(hh, recovery->orphans, txn_id, sizeof orphan->txn_id, orphan);
    recovery->open++;
    return orphan;
}

static void forget_reports(struct recovery *recovery)
{
    struct orphan *orphan, *after;
    for (unsigned i = 0; i < recovery->shard_count; i++) {
        free(recovery->reports[i].done);
        recovery->reports[i].done = NULL;
    }
    HASH_ITER(hh, recovery->orphans, orphan, after) {
        for (unsigned i = 0; i < recovery->shard_count; i++)
            calls_cancel(recovery->calls, orphan->errands[i].call);
        HASH_DEL(recovery->orphans, orphan);
        free(orphan);
    }
}

static void finish_when_through(struct recovery *recovery)
{
    kv_shard_set all = kv_shard_bit(recovery->shard_count) - 1;
    if (recovery->done || recovery->reported != all || recovery->open > 0)
        return;
    recovery->done = true;
    forget_reports(recovery);
    recovery->on_recovered(recovery->arg);
}

static void write_id(void *arg, struct kv_buf *buf)
{
    const struct errand *errand = arg;
    kv_put_id(buf, errand->orphan->txn_id);
}

static void on_carried_out(void *arg, struct kv_slice body)
{
    (void)body;
    struct errand *errand = arg;
    struct recovery *recovery = errand->orphan->recovery;
    errand->call = NULL;
    if (--errand->orphan->waiting > 0)
        return;
    recovery->open--;
    finish_when_through(recovery);
}

static bool is_done(const struct report *report, uint64_t txn_id)
{
    return report->done_count > 0 &&
           bsearch(&txn_id, report->done, report->done_count, sizeof txn_id, txn_ids_compare) != NULL;
}

static bool all_have_it(const struct recovery *recovery, const struct orphan *orphan)
{
    for (unsigned i = 0; i < recovery->shard_count; i++) {
        bool takes_part = (orphan->participants & ~orphan->intents & kv_shard_bit(i)) != 0;
        if (takes_part && !is_done(&recovery->reports[i], orphan->txn_id))
            return false;
    }
    return true;
}

static void decide(struct recovery *recovery, struct orphan *orphan)
{
    bool commit = all_have_it(recovery, orphan);
    orphan->decided = true;
    kv_info("transaction %llu of epoch %llu: %s", (unsigned long long)orphan->txn_id,
            (unsigned long long)kv_txn_epoch(orphan->txn_id), commit ? "committed" : "aborted");
    for (unsigned i = 0; i < recovery->shard_count; i++) {
        if ((orphan->intents & kv_shard_bit(i)) == 0)
            continue;
        orphan->errands[i].orphan = orphan;
        orphan->waiting++;
        orphan->errands[i].call = calls_send(recovery->calls, i, commit ? KV_MSG_COMMIT : KV_MSG_ABORT, true, write_id,
                                             on_carried_out, &orphan->errands[i]);
    }
}

/* Decides what can be decided now that one more shard has reported. */
static void decide_ready(struct recovery *recovery)
{
    struct orphan *orphan, *after;
    HASH_ITER(hh, recovery->orphans, orphan, after) {
        bool complete = (orphan->participants & ~recovery->reported) == 0;
        if (!orphan->decided && complete)
            decide(recovery, orphan);
    }
}

static void take_intents(struct recovery *recovery, unsigned shard_index, struct kv_list intents)
{
    uint64_t txn_id;
    kv_shard_set participants;
    while (kv_next_report_intent(&intents, &txn_id, &participants)) {
        if (kv_txn_epoch(txn_id) >= recovery->epoch)
            continue; /* our own, under way */
        struct orphan *orphan = get_orphan(recovery, txn_id);
        orphan->participants |= participants;
        orphan->intents |= kv_shard_bit(shard_index);
    }
}

static void take_done(struct report *report, struct kv_list done)
{
    uint64_t txn_id;
    report->done = kv_alloc(done.count * sizeof *report->done + 1);
    while (kv_next_uint(&done, &txn_id)) {
        if (kv_txn_epoch(txn_id) < report->recovery->epoch)
            report->done[report->done_count++] = txn_id;
    }
    if (report->done_count > 0)
        qsort(report->done, report->done_count, sizeof *report->done, txn_ids_compare);
}

static void on_report(void *arg, struct kv_slice body)
{
    struct report *report = arg;
    struct recovery *recovery = report->recovery;
    report->call = NULL;
    struct kv_list intents, done;
    enum kv_err err = kv_get_report(body, &intents, &done);
    kv_assert(err == KV_OK);
    recovery->reported |= kv_shard_bit(report->shard_index);
    take_intents(recovery, report->shard_index, intents);
    take_done(report, done);
    decide_ready(recovery);
    finish_when_through(recovery);
}

static void write_recover(void *arg, struct kv_buf *buf)
{
    (void)arg;
    kv_put_empty(buf);
}

struct recovery *recovery_new(struct calls *calls, unsigned shard_count, uint64_t epoch,
                              void (*on_recovered)(void *arg), void *arg)
{
    struct recovery *recovery = kv_alloc_zero(1, sizeof *recovery);
    recovery->calls = calls;
    recovery->shard_count = shard_count;
    recovery->epoch = epoch;
    recovery->on_recovered = on_recovered;
    recovery->arg = arg;
    for (unsigned i = 0; i < shard_count; i++) {
        recovery->reports[i] = (struct report){.recovery = recovery, .shard_index = i};
        recovery->reports[i].call =
            calls_send(calls, i, KV_MSG_RECOVER, true, write_recover, on_report, &recovery->reports[i]);
    }
    return recovery;
}

void recovery_free(struct recovery **recovery)
{
    if (*recovery == NULL)
        return;
    for (unsigned i = 0; i < (*recovery)->shard_count; i++)
        calls_cancel((*recovery)->calls, (*recovery)->reports[i].call);
    forget_reports(*recovery);
    free(*recovery);
    *recovery = NULL;
}
