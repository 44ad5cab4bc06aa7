/* tests/sim/nemesis.c -- see nemesis.h. */
#include "nemesis.h"

#include "hang.h"
#include "router.h"
#include "shard.h"

#define HEALED_WAIT_MS 5000u /* the last questions get an answer however slow the disk is */
/* Then everybody must come through: between blows of every 30 ms at most, what takes 40 ms to stage and commit never does. */
#define STORM_US_MAX (60000 * (uint64_t)SIM_MS)

/* ---- crash and restart ---------------------------------------------------------------------------------------- */

static void on_shard_start(void *arg)
{
    struct shard *shard = arg;
    if (!shard->process.up)
        shard_start(shard);
}

static void on_router_start(void *arg)
{
    struct sim *sim = arg;
    sim->config.wait_ms = HEALED_WAIT_MS;
    if (!sim->router->process.up)
        router_start(sim);
    for (unsigned i = 0; i < sim->config.thread_count; i++)
        sim->router->threads[i].backend.wait_ms = HEALED_WAIT_MS;
}

/* Mostly soon, sometimes later than anybody waits. */
static uint64_t pause_us(struct sim *sim)
{
    bool late = !sim->config.gentle && random_chance(&sim->random, 100);
    uint64_t max_us = late ? sim->config.wait_ms * SIM_MS * 3 / 2 : 30 * SIM_MS;
    return random_below(&sim->random, max_us);
}

static void crash_shard(struct sim *sim, struct shard *shard)
{
    shard_crash(shard);
    sim_at(sim, pause_us(sim), NULL, true, on_shard_start, shard);
}

static struct shard *some_shard(struct sim *sim)
{
    return sim->shards[random_below(&sim->random, sim->config.shard_count)];
}

static void blow_shard(struct sim *sim)
{
    crash_shard(sim, some_shard(sim));
}

static void blow_router(struct sim *sim)
{
    router_crash(sim->router);
    sim_at(sim, pause_us(sim), NULL, true, on_router_start, sim);
}

static void on_old_router_end(void *arg)
{
    router_crash(arg);
}

/* The old one lives on beside the new one. */
static void blow_replace(struct sim *sim)
{
    struct router *old = sim->router;
    if (!old->process.up)
        return;
    router_start(sim);
    sim_at(sim, random_below(&sim->random, 200 * SIM_MS), NULL, true, on_old_router_end, old);
}

static void blow_all(struct sim *sim)
{
    for (unsigned i = 0; i < sim->config.shard_count; i++)
        crash_shard(sim, sim->shards[i]);
    blow_router(sim);
}

static void blow_both(struct sim *sim)
{
    blow_shard(sim);
    blow_router(sim);
}

/* ---- the rest ------------------------------------------------------------------------------------------------- */

static void blow_link(struct sim *sim)
{
    struct link *live[2 * SIM_SHARDS_MAX * SIM_THREADS_MAX];
    size_t count = 0;
    for (struct link *link = sim->links; link != NULL && count < sizeof live / sizeof *live; link = link->next) {
        if (link->router_open && !link->broken)
            live[count++] = link;
    }
    if (count > 0)
        link_break(live[random_below(&sim->random, count)]);
}

static void blow_stop(struct sim *sim)
{
    struct process *process = random_chance(&sim->random, 300) ? &sim->router->process : &some_shard(sim)->process;
    if (process->up)
        process->stopped_until_us =
            sim->now_us + random_below(&sim->random, (random_chance(&sim->random, 30) ? 5000 : 200) * SIM_MS);
}

static void on_disk_free(void *arg)
{
    ((struct shard *)arg)->disk.full = 0;
}

static void blow_disk(struct sim *sim)
{
    struct shard *shard = some_shard(sim);
    if (shard->disk.full > 0)
        return;
    shard->disk.full = (unsigned)random_between(&sim->random, 1, 2);
    sim_at(sim, random_below(&sim->random, 300 * SIM_MS), NULL, true, on_disk_free, shard);
}

static void (*const blows[NEMESIS_COUNT])(struct sim *sim) = {
    [NEMESIS_SHARD] = blow_shard, [NEMESIS_ROUTER] = blow_router, [NEMESIS_REPLACE] = blow_replace,
    [NEMESIS_ALL] = blow_all,     [NEMESIS_BOTH] = blow_both,     [NEMESIS_LINK] = blow_link,
    [NEMESIS_STOP] = blow_stop,   [NEMESIS_DISK] = blow_disk,
};
_Static_assert(NEMESIS_COUNT == sizeof((struct config *)0)->fault_weights / sizeof(unsigned), "a weight for each blow");

static void strike(struct sim *sim)
{
    const unsigned *weights = sim->config.fault_weights;
    unsigned total = 0;
    for (size_t i = 0; i < (size_t)NEMESIS_COUNT; i++)
        total += weights[i];
    if (total == 0)
        return;
    uint64_t at = random_below(&sim->random, total);
    for (size_t i = 0; i < (size_t)NEMESIS_COUNT; i++) {
        if (at < weights[i]) {
            SIM_TRACE(sim, "blow %zu", i);
            blows[i](sim);
            return;
        }
        at -= weights[i];
    }
}

static void next_blow(struct sim *sim);

static void on_blow(void *arg)
{
    struct sim *sim = arg;
    if (sim->healed || sim->now_us > STORM_US_MAX)
        return;
    strike(sim);
    next_blow(sim);
}

static void next_blow(struct sim *sim)
{
    sim_at(sim, random_below(&sim->random, 2 * sim->config.fault_us_mean), NULL, true, on_blow, sim);
}

void nemesis_start(struct sim *sim)
{
    if (sim->config.hang)
        hang_start(sim);
    if (sim->config.fault_us_mean > 0)
        next_blow(sim);
}

void nemesis_heal(struct sim *sim)
{
    SIM_TRACE(sim, "healed");
    sim->healed = true;
    for (unsigned i = 0; i < sim->config.shard_count; i++) {
        sim->shards[i]->disk.full = 0;
        if (!sim->shards[i]->process.up)
            shard_start(sim->shards[i]);
    }
    for (struct router *router = sim->routers; router != NULL; router = router->older) {
        if (router != sim->router)
            router_crash(router);
    }
    sim->config.wait_ms = HEALED_WAIT_MS;
    if (!sim->router->process.up)
        router_start(sim);
    for (unsigned i = 0; i < sim->config.thread_count; i++)
        sim->router->threads[i].backend.wait_ms = HEALED_WAIT_MS;
}
