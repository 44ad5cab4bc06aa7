/* Goal: shards are told to forget what has ended everywhere, all of it but what is open, however long that is; and never an id in use.
 * Method: forget.h over real calls and transactions on three shards, which the test plays (txn_rig.h); time is a number. Then two
 * threads that take ids and end them, while a third looks whether one in use is told. */
#include "txn_rig.h"

#include <pthread.h>

#include "forget.h"
#include "txn.h"

#define EPOCH 3u
#define THREADS 2u
#define TICK_MS 20u
#define IDS_MAX 8u

struct seen {
    struct txn_rig rig;
    struct txn_ids ids;
    struct txns *txns[THREADS];
    struct forget *forget;
    uint64_t now_ms;
    /* of the last FORGET */
    uint64_t from, below, open[IDS_MAX];
    size_t open_count;
};

struct user {
    struct seen *seen;
    unsigned thread_index;
};
static struct user users[THREADS];

static uint64_t next_id(void *ctx)
{
    const struct user *user = ctx;
    return txn_ids_next(&user->seen->ids, user->thread_index);
}

static struct seen *begin(void)
{
    struct seen *seen = kv_alloc_zero(1, sizeof *seen);
    txn_rig_open(&seen->rig);
    txn_ids_init(&seen->ids, EPOCH);
    for (unsigned i = 0; i < THREADS; i++) {
        users[i] = (struct user){seen, i};
        seen->txns[i] = txns_new(seen->rig.calls, RIG_SHARDS, &(struct txns_world){&users[i], next_id});
    }
    seen->forget = forget_new(seen->rig.calls, RIG_SHARDS, &seen->ids);
    return seen;
}

static void end(struct seen *seen)
{
    forget_free(&seen->forget);
    for (unsigned i = 0; i < THREADS; i++)
        txns_free(&seen->txns[i]);
    txn_ids_clear(&seen->ids);
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        cr_expect_eq(calls_waiting(seen->rig.calls, i), 0u);
    txn_rig_close(&seen->rig);
    free(seen);
}

static uint64_t id(uint64_t sequence)
{
    return kv_txn_id(EPOCH, sequence);
}

static struct txn *begin_txn(struct seen *seen, unsigned thread_index)
{
    static struct kv_slice key;
    key = kv_slice_text("key");
    return txn_begin_blind(seen->txns[thread_index], &key, 1, NULL);
}

static void tick(struct seen *seen)
{
    seen->now_ms += TICK_MS;
    for (unsigned i = 0; i < THREADS; i++)
        txn_ids_publish(&seen->ids, i, seen->txns[i], seen->now_ms);
    forget_tick(seen->forget, seen->now_ms);
}

static void read_forget(struct seen *seen)
{
    struct kv_list open;
    cr_assert_eq(kv_get_forget(kv_buf_peek(&seen->rig.taken), &seen->from, &seen->below, &open), KV_OK);
    cr_assert_leq(open.count, IDS_MAX);
    seen->open_count = 0;
    while (kv_next_uint(&open, &seen->open[seen->open_count]))
        seen->open_count++;
}

/* How many FORGETs this shard was told by now; it says DONE to each. */
static unsigned hear(struct seen *seen, unsigned shard_index)
{
    unsigned count = 0;
    uint64_t request_id;
    while (txn_rig_take(&seen->rig, shard_index, &request_id) == KV_MSG_FORGET) {
        read_forget(seen);
        txn_rig_done(&seen->rig, shard_index, request_id, KV_OK);
        count++;
    }
    return count;
}

static void pass(struct seen *seen, uint64_t ms)
{
    for (uint64_t until = seen->now_ms + ms; seen->now_ms < until;) {
        tick(seen);
        for (unsigned i = 0; i < RIG_SHARDS; i++)
            hear(seen, i);
    }
}

Test(forget, what_has_ended_everywhere)
{
    struct seen *seen = begin();
    txn_ids_recovered(&seen->ids);
    struct txn *first = begin_txn(seen, 0), *second = begin_txn(seen, 1);
    tick(seen);
    cr_expect_eq(hear(seen, 0), 1u);
    cr_expect(seen->from == 0 && seen->below == id(1) && seen->open_count == 0);
    txn_give_up(first);
    tick(seen);
    cr_expect_eq(hear(seen, 0), 1u);
    cr_expect_eq(seen->below, id(2), "the other thread's is open");
    txn_give_up(second);
    tick(seen);
    cr_expect_eq(hear(seen, 0), 1u);
    cr_expect_eq(seen->below, id(3));
    tick(seen);
    cr_expect_eq(hear(seen, 0), 0u, "nothing new");
    end(seen);
}

/* The last router's ids decide what becomes of its transactions: not a word about them before that is done. */
Test(forget, only_its_own_before_the_recovery)
{
    struct seen *seen = begin();
    txn_give_up(begin_txn(seen, 0));
    tick(seen);
    cr_expect_eq(hear(seen, 1), 1u);
    cr_expect(seen->from == id(0) && seen->below == id(2));
    txn_ids_recovered(&seen->ids);
    tick(seen);
    cr_expect_eq(hear(seen, 1), 1u);
    cr_expect(seen->from == 0 && seen->below == id(2));
    end(seen);
}

Test(forget, one_that_stays_open_is_named_and_holds_up_nothing)
{
    struct seen *seen = begin();
    txn_ids_recovered(&seen->ids);
    struct txn *stuck = begin_txn(seen, 0), *other = begin_txn(seen, 1);
    for (unsigned i = 0; i < 200; i++) {
        txn_give_up(begin_txn(seen, i % THREADS));
        pass(seen, TICK_MS);
    }
    cr_expect_eq(seen->open_count, 2u);
    cr_expect(seen->open[0] == id(1) && seen->open[1] == id(2));
    cr_expect_gt(seen->below, id(202 - (FORGET_OPEN_MS * 2 + FORGET_NAMED_MS * 2) / TICK_MS), "%llu",
                 (unsigned long long)(seen->below - id(0)));
    txn_give_up(stuck);
    txn_give_up(other);
    pass(seen, FORGET_OPEN_MS + 2 * FORGET_NAMED_MS + TICK_MS);
    cr_expect(seen->open_count == 0 && seen->below == id(203));
    end(seen);
}

/* One that hangs is asked once; when it is back, or its successor, it hears the newest. */
Test(forget, one_message_at_a_time)
{
    struct seen *seen = begin();
    txn_ids_recovered(&seen->ids);
    for (unsigned i = 0; i < 100; i++) {
        txn_give_up(begin_txn(seen, 0));
        tick(seen);
        hear(seen, 0);
        hear(seen, 2);
    }
    cr_expect_eq(calls_waiting(seen->rig.calls, 1), 1u);
    calls_link_down(seen->rig.calls, 1);
    calls_link_up(seen->rig.calls, 1);
    cr_expect_eq(hear(seen, 1), 1u);
    cr_expect_eq(seen->below, id(101), "not what it was when it was asked first");
    tick(seen);
    cr_expect_eq(hear(seen, 1), 0u);
    end(seen);
}

/* ---- threads -------------------------------------------------------------------------------------------------- */

#define ROUNDS 20000u

struct worker {
    struct txn_ids *ids;
    unsigned thread_index;
    struct calls *calls;
    struct txns *txns;
    _Atomic uint64_t in_use; /* the id, once the thread has it; 0: none */
    _Atomic bool over;
};

static void on_wake(void *ctx, unsigned shard_index)
{
    (void)ctx;
    (void)shard_index;
}

static uint64_t worker_id(void *ctx)
{
    struct worker *worker = ctx;
    uint64_t next = txn_ids_next(worker->ids, worker->thread_index);
    atomic_store(&worker->in_use, next);
    return next;
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    struct kv_slice key = kv_slice_text("key");
    for (uint64_t i = 0; i < ROUNDS; i++) {
        struct txn *txn = txn_begin_blind(worker->txns, &key, 1, NULL);
        if (i % 3 == 0)
            txn_ids_publish(worker->ids, worker->thread_index, worker->txns, i * 7);
        atomic_store(&worker->in_use, 0);
        txn_give_up(txn);
        if (i % 5 == 0)
            txn_ids_publish(worker->ids, worker->thread_index, worker->txns, i * 7 + 3);
    }
    atomic_store(&worker->over, true);
    return NULL;
}

static void start_worker(struct worker *worker, struct txn_ids *ids, unsigned index)
{
    *worker = (struct worker){.ids = ids, .thread_index = index};
    worker->calls = calls_new(RIG_SHARDS, &(struct calls_world){.wake = on_wake});
    worker->txns = txns_new(worker->calls, RIG_SHARDS, &(struct txns_world){worker, worker_id});
}

/* Told while somebody uses it: within the statement, and not named by it. */
static bool tells(const struct seen *seen, uint64_t used)
{
    bool named = false;
    for (size_t i = 0; i < seen->open_count; i++)
        named = named || seen->open[i] == used;
    return used != 0 && used < seen->below && !named;
}

Test(forget, no_id_in_use_is_told_by_another_thread)
{
    struct seen *seen = begin();
    static struct worker workers[THREADS];
    pthread_t threads[THREADS];
    txn_ids_recovered(&seen->ids);
    for (unsigned i = 0; i < THREADS; i++)
        start_worker(&workers[i], &seen->ids, i);
    for (unsigned i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    uint64_t request_id, told = 0;
    while (!atomic_load(&workers[0].over) || !atomic_load(&workers[1].over)) {
        seen->now_ms += FORGET_NAMED_MS;
        forget_tick(seen->forget, seen->now_ms);
        uint64_t used[THREADS]; /* behind the statement: whoever has an id now had it then, or a later one */
        for (unsigned i = 0; i < THREADS; i++)
            used[i] = atomic_load(&workers[i].in_use);
        for (unsigned i = 0; i < RIG_SHARDS; i++) {
            if (txn_rig_take(&seen->rig, i, &request_id) != KV_MSG_FORGET)
                continue;
            read_forget(seen);
            txn_rig_done(&seen->rig, i, request_id, KV_OK);
            told++;
        }
        for (unsigned i = 0; i < THREADS; i++)
            cr_assert_not(tells(seen, used[i]), "%llu", (unsigned long long)(used[i] - id(0)));
    }
    cr_expect_gt(told, 0u);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        txns_free(&workers[i].txns);
        calls_free(&workers[i].calls);
    }
    end(seen);
}
