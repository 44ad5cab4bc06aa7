/* tests/sim/run.c -- one run from its seed to its verdict. */
#include "check.h"
#include "client.h"
#include "draw.h"
#include "file.h"
#include "kv/log.h"
#include "nemesis.h"
#include "router.h"
#include "shard.h"

#define SPARE_OPS 20 /* asked at the end, of nobody in particular */
#define WORK_US_MAX (600000 * (uint64_t)SIM_MS)
#define REST_US_MAX (60000 * (uint64_t)SIM_MS)

static void pass(struct sim *sim, uint64_t us)
{
    uint64_t until_us = sim->now_us + us;
    while (sim->event_count > 0 && sim->events[0].at_us <= until_us)
        sim_step(sim);
    sim->now_us = until_us;
}

static void work(struct sim *sim)
{
    while (sim->clients_busy > 0) {
        if (!sim_step(sim) || sim->now_us > WORK_US_MAX)
            sim_fail("%u clients are still at work after %llu simulated seconds", sim->clients_busy,
                     (unsigned long long)(sim->now_us / SIM_MS / 1000));
    }
}

static bool is_quiet(struct sim *sim, char *who, size_t who_bytes, const char **why)
{
    snprintf(who, who_bytes, "the router");
    if (!router_is_quiet(sim->router, why))
        return false;
    for (unsigned i = 0; i < sim->config.shard_count; i++) {
        snprintf(who, who_bytes, "shard %u", i);
        if (!shard_is_quiet(sim->shards[i], why))
            return false;
    }
    return true;
}

/* Until nothing is under way anywhere and every row is applied. */
static void rest(struct sim *sim)
{
    char who[32] = "";
    const char *why = "";
    uint64_t until_us = sim->now_us + REST_US_MAX;
    do {
        if (sim->now_us > until_us)
            sim_fail("%s does not come to rest: %s", who, why);
        pass(sim, 20 * SIM_MS);
    } while (!is_quiet(sim, who, sizeof who, &why));
}

static const struct op *ask_quietly(struct sim *sim, const struct op *asked)
{
    const struct op *op = client_ask(sim, asked);
    for (unsigned i = 0; i < 1000 && op->outcome == OP_UNDER_WAY; i++)
        pass(sim, 20 * SIM_MS);
    return op;
}

static struct op for_all_keys(const struct sim *sim, enum backend_op_kind kind)
{
    struct op op = {.kind = OP_TRANSACT, .count = sim->config.key_count};
    for (unsigned key = 0; key < sim->config.key_count; key++)
        op.specs[key] = (struct spec){.kind = kind, .key = key};
    return op;
}

static void list_quietly(struct sim *sim)
{
    static const char *const prefixes[] = {"", "", "a", "a/", "b/", "b/1", "q"};
    struct op op = {.kind = OP_LIST, .limit = random_between(&sim->random, 1, SIM_LIST_MAX)};
    if (random_chance(&sim->random, 500))
        op.limit = random_between(&sim->random, 1, 2);
    snprintf(op.prefix, sizeof op.prefix, "%s",
             prefixes[random_below(&sim->random, sizeof prefixes / sizeof *prefixes)]);
    op.delimited = random_chance(&sim->random, 500);
    op.after = (unsigned)random_below(&sim->random, sim->config.key_count + 1);
    op.inclusive = random_chance(&sim->random, 300);
    op.offset = random_chance(&sim->random, 700) ? 0 : random_below(&sim->random, 5);
    ask_quietly(sim, &op);
}

/* The last questions, with nobody else about. */
static void look(struct sim *sim)
{
    for (unsigned i = 0; i < 4; i++)
        list_quietly(sim);
    struct op heads = for_all_keys(sim, BACKEND_HEAD), gets = for_all_keys(sim, BACKEND_GET);
    ask_quietly(sim, &heads);
    ask_quietly(sim, &gets);
    ask_quietly(sim, &(struct op){.kind = OP_LIST, .limit = SIM_LIST_MAX});
    for (unsigned i = 0; i < 8; i++) { /* by way of each thread: what its cache still has is true */
        struct op read = {.kind = OP_READ, .client = i / 4, .count = 1, .limit = 1000};
        read.specs[0].key = i % 4 % sim->config.key_count;
        ask_quietly(sim, &read);
    }
}

static void restart_all(struct sim *sim)
{
    bool tidy = random_chance(&sim->random, 500);
    for (unsigned i = 0; i < sim->config.shard_count; i++) {
        if (tidy)
            shard_close(sim->shards[i]);
        else
            shard_crash(sim->shards[i]);
    }
    for (unsigned i = 0; i < sim->config.shard_count; i++)
        shard_start(sim->shards[i]);
}

static void delete_all(struct sim *sim)
{
    struct op deletes = for_all_keys(sim, BACKEND_DELETE);
    const struct op *op = ask_quietly(sim, &deletes);
    if (op->outcome != OP_ANSWERED || op->err != KV_OK)
        sim_fail("everything cannot be deleted: `%s`", kv_err_text(op->err));
    rest(sim);
    check_disks(sim, &(struct model){0});
}

static void close_all(struct sim *sim)
{
    router_close(sim->router);
    for (unsigned i = 0; i < sim->config.shard_count; i++)
        shard_close(sim->shards[i]);
    sim_files_expect_none(sim);
}

static void start(struct sim *sim)
{
    draw_config(sim);
    sim->ops_left = sim->config.op_count;
    sim->history.capacity = sim->config.op_count + SPARE_OPS;
    sim->history.ops = kv_alloc_zero(sim->history.capacity, sizeof *sim->history.ops);
    for (unsigned i = 0; i < sim->config.shard_count; i++)
        sim->shards[i] = shard_new(sim, i);
    for (unsigned i = 0; i < sim->config.shard_count; i++)
        shard_start(sim->shards[i]);
    router_start(sim);
    clients_start(sim);
    nemesis_start(sim);
}

void sim_run(struct sim *sim)
{
    struct model model;
    start(sim);
    work(sim);
    nemesis_heal(sim);
    rest(sim);
    look(sim);
    rest(sim);
    check_history(sim, &model);
    check_disks(sim, &model);
    if (random_chance(&sim->random, 300)) {
        restart_all(sim);
        rest(sim);
        check_disks(sim, &model);
    }
    delete_all(sim);
    close_all(sim);
}

void sim_end(struct sim *sim)
{
    for (struct router *router = sim->routers; router != NULL; router = router->older)
        heap_free_all(&router->process.heap);
    for (unsigned i = 0; i < SIM_SHARDS_MAX; i++) {
        if (sim->shards[i] == NULL)
            continue;
        heap_free_all(&sim->shards[i]->process.heap);
        disk_free(&sim->shards[i]->disk);
    }
    heap_free_all(&sim->heap);
}
