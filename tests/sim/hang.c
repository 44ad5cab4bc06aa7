/* tests/sim/hang.c -- see hang.h. */
#include "hang.h"

#include "core_internal.h"
#include "kv/log.h"
#include "kv/model.h"
#include "router.h"
#include "shard.h"

#define HANG_US (12000 * SIM_MS)
#define LOOK_US (500 * SIM_MS)
/* Begun so long ago, a transaction is open, or every shard that hears has heard that it is not: what gives up does so within a second,
 * and then it takes two marks and two messages (router/forget.h). */
#define FORGOTTEN_US (5000 * SIM_MS)

static uint64_t begun_us(const struct sim *sim, uint64_t txn_id)
{
    for (size_t i = sim->history.begun_count; i-- > 0;) {
        if (sim->history.begun[i].txn_id == txn_id)
            return sim->history.begun[i].at_us;
    }
    sim_fail("nobody began transaction %llx", (unsigned long long)txn_id);
}

static struct kv_buf open_ids(const struct sim *sim)
{
    struct kv_buf ids = {0};
    for (unsigned i = 0; i < sim->config.thread_count; i++)
        txns_ids(sim->router->threads[i].backend.txns, UINT64_MAX, &ids);
    return ids;
}

static bool is_among(const struct kv_buf *ids, uint64_t txn_id)
{
    const uint64_t *at = (const uint64_t *)(const void *)ids->data;
    for (size_t i = 0; i < ids->bytes / sizeof *at; i++) {
        if (at[i] == txn_id)
            return true;
    }
    return false;
}

/* Ids of older routers wait for the recovery, and with it for the shard that hangs. */
static void look_at(const struct sim *sim, const struct shard *shard, const struct kv_buf *open)
{
    for (const struct done *done = shard->core->intents.done; done != NULL; done = done->hh.next) {
        bool ours = kv_txn_epoch(done->txn_id) == sim->router->epoch;
        if (ours && begun_us(sim, done->txn_id) + FORGOTTEN_US < sim->now_us && !is_among(open, done->txn_id))
            sim_fail("shard %u still remembers transaction %llx, which is not open", shard->index,
                     (unsigned long long)done->txn_id);
    }
}

static bool hangs(const struct sim *sim)
{
    for (unsigned i = 0; i < sim->config.shard_count; i++) {
        if (sim->shards[i]->process.stopped_until_us > sim->now_us)
            return true;
    }
    return false;
}

static void on_look(void *arg)
{
    struct sim *sim = arg;
    if (sim->healed || !hangs(sim))
        return; /* what it held open has ended now */
    struct kv_buf open = open_ids(sim);
    for (unsigned i = 0; i < sim->config.shard_count; i++) {
        if (sim->shards[i]->process.stopped_until_us == 0) /* it has never hung */
            look_at(sim, sim->shards[i], &open);
    }
    kv_buf_free(&open);
    sim_at(sim, LOOK_US, NULL, true, on_look, sim);
}

static void on_replace_router(void *arg)
{
    struct sim *sim = arg;
    if (sim->healed)
        return;
    router_crash(sim->router);
    router_start(sim);
}

static void on_hang(void *arg)
{
    struct sim *sim = arg;
    struct shard *shard = sim->shards[random_below(&sim->random, sim->config.shard_count)];
    SIM_TRACE(sim, "shard %u hangs", shard->index);
    shard->process.stopped_until_us = sim->now_us + HANG_US;
    if (random_chance(&sim->random, 500))
        sim_at(sim, random_below(&sim->random, 2000 * SIM_MS), NULL, true, on_replace_router, sim);
    sim_at(sim, LOOK_US, NULL, true, on_look, sim);
}

void hang_start(struct sim *sim)
{
    sim_at(sim, random_below(&sim->random, 200 * SIM_MS), NULL, true, on_hang, sim);
}
