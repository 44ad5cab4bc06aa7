/* tests/sim/shard_life.c -- see shard.h. This file: start with replay, ticks, crash, tidy end. */
#include "shard_life.h"

#include <stdlib.h>

#include "core_internal.h"
#include "file.h"
#include "kv/log.h"

static void failed(void *ctx, enum kv_err err, const char *what)
{
    sim_fail("shard %u: %s: %s", ((struct shard *)ctx)->index, what, kv_err_text(err));
}

static enum kv_err get_key(void *ctx, struct kv_slice key, struct kv_slice *row)
{
    return disk_get_key(&((struct shard *)ctx)->disk, key, row);
}

static enum kv_err get_object(void *ctx, const struct kv_hash *hash, struct kv_slice *row)
{
    return disk_get_object(&((struct shard *)ctx)->disk, hash, row);
}

static enum kv_err get_blob(void *ctx, uint64_t object_id, uint64_t offset, uint64_t bytes, struct kv_buf *out)
{
    return disk_get_blob(&((struct shard *)ctx)->disk, object_id, offset, bytes, out);
}

static enum kv_err seek_key(void *ctx, struct kv_slice from, struct kv_buf *key, struct kv_slice *row)
{
    return disk_seek_key(&((struct shard *)ctx)->disk, from, false, key, row);
}

static enum kv_err next_key(void *ctx, struct kv_buf *key, struct kv_slice *row)
{
    struct kv_buf from = {0};
    kv_buf_append(&from, kv_buf_peek(key));
    enum kv_err err = disk_seek_key(&((struct shard *)ctx)->disk, kv_buf_peek(&from), true, key, row);
    kv_buf_free(&from);
    return err;
}

static struct core_world world_of(struct shard *shard)
{
    return (struct core_world){.ctx = shard,
                               .answer_begin = shard_answer_begin,
                               .answer_end = shard_answer_end,
                               .append = shard_append,
                               .room = shard_room,
                               .stage = shard_stage,
                               .unstage = shard_unstage,
                               .failed = failed,
                               .slot = shard_slot,
                               .get_key = get_key,
                               .get_object = get_object,
                               .get_blob = get_blob,
                               .seek_key = seek_key,
                               .next_key = next_key};
}

/* ---- start ---------------------------------------------------------------------------------------------------- */

static void replay(struct shard *shard, uint64_t from)
{
    struct disk *disk = &shard->disk;
    uint64_t last = disk->count;
    if (shard->process.sim->fault == FAULT_REPLAY_SKIPS_TAIL && last > from)
        last--;
    for (uint64_t position = from + 1; position <= last; position++) {
        uint32_t type = disk->records[position - 1].type;
        if (core_replay(shard->core, position, type, disk_body(disk, position)) != KV_OK)
            sim_fail("shard %u cannot replay record %llu of type %u", shard->index, (unsigned long long)position, type);
        if (!core_wants_freeze(shard->core, false))
            continue;
        struct core_generation *generation = core_freeze(shard->core);
        disk_apply(disk, generation);
        core_applied(shard->core, &generation);
    }
}

/* Gives the position up to which it is applied, or will be. */
static uint64_t make_core(struct shard *shard, const struct core_options *options)
{
    struct core_world world = world_of(shard);
    struct store_meta meta = disk_meta(&shard->disk);
    struct store_redo redo = {0};
    if (shard->process.sim->fault == FAULT_HALF_FORGOTTEN)
        store_redo_free(&shard->disk.redo);
    bool half = disk_get_redo(&shard->disk, &redo);
    uint64_t position = half ? redo.meta.position : meta.position;
    shard->core = core_new(options, &world, half ? &redo.meta : &meta);
    if (!half)
        return position;
    shard->frozen = core_restore(shard->core, &redo);
    if (shard->disk.full == 0) {
        disk_apply(&shard->disk, shard->frozen);
        core_applied(shard->core, &shard->frozen);
    }
    return position;
}

static void on_tick(void *arg)
{
    struct shard *shard = arg;
    struct sim *sim = shard->process.sim;
    enum kv_err err = shard->disk.full > 0 || shard->applier_full ? KV_NO_SPACE : KV_OVERLOADED;
    core_tick(shard->core, sim->now_us / SIM_MS, sim->config.wait_ms / 2, err);
    if (shard->disk.full == 0 && random_chance(&sim->random, 200)) {
        uint64_t *held;
        size_t held_count;
        core_held(shard->core, &held, &held_count);
        if (shard->frozen ==
            NULL) /* what a frozen generation pins is not asked for meanwhile: the real applier keeps it */
            disk_sweep(&shard->disk, held, held_count, 1);
        free(held);
    }
    shard_turn_end(shard);
    sim_at(sim, 100 * SIM_MS, &shard->process, false, on_tick, shard);
}

void shard_start(struct shard *shard)
{
    struct sim *sim = shard->process.sim;
    struct heap *before = heap_enter(&shard->process.heap);
    struct core_options options = {.shard_index = shard->index,
                                   .shard_count = sim->config.shard_count,
                                   .overlay_bytes_max = sim->config.overlay_bytes};
    shard->process.up = true;
    shard->epoch = sim->epoch; /* the supervisor says which was the last */
    shard->appended_us = sim->now_us;
    shard->disk.staged_left = 0;
    uint64_t position = make_core(shard, &options);
    SIM_TRACE(sim, "shard %u starts: %llu records, %llu applied%s", shard->index, (unsigned long long)shard->disk.count,
              (unsigned long long)position, shard->frozen != NULL ? ", the last of them half" : "");
    replay(shard, position);
    core_start(shard->core, shard->disk.staged, shard->disk.staged_count);
    heap_enter(before);
    sim_at(sim, 100 * SIM_MS, &shard->process, false, on_tick, shard);
    for (struct link *link = sim->links; link != NULL; link = link->next) {
        if (link->shard_index == shard->index && !link->accepted)
            link_wake(link);
    }
}

struct shard *shard_new(struct sim *sim, unsigned index)
{
    struct shard *shard = kv_alloc_zero(1, sizeof *shard);
    shard->process.sim = sim;
    shard->process.incarnation = 1;
    heap_init(&shard->process.heap);
    disk_init(&shard->disk);
    shard->index = index;
    return shard;
}

/* ---- end ------------------------------------------------------------------------------------------------------ */

void shard_do_job(struct shard *shard, const struct stage_job *job)
{
    if (job->unstage) {
        disk_unstage(&shard->disk, job->object_id);
        return;
    }
    struct kv_buf whole = {0};
    kv_buf_append(&whole, kv_slice(job->data, job->bytes));
    if (job->file != NULL)
        sim_file_read(job->file, job->file_offset, job->file_bytes, &whole);
    disk_stage(&shard->disk,
               &(struct store_piece){.object_id = job->object_id, .offset = job->offset, .bytes = kv_buf_peek(&whole)});
    kv_buf_free(&whole);
}

/* What the applier was at may have been done, though nobody heard of it. */
static void finish_by_chance(struct shard *shard)
{
    struct random *random = &shard->process.sim->random;
    if (shard->disk.full > 0)
        return;
    if (shard->applying && random_chance(random, 500))
        disk_apply(&shard->disk, shard->frozen);
    else if (shard->applying && random_chance(random, 500))
        disk_apply_half(&shard->disk, shard->frozen, random);
    for (const struct stage_job *job = shard->jobs; job != NULL && random_chance(random, 600); job = job->next)
        shard_do_job(shard, job);
}

static void forget_process(struct shard *shard)
{
    struct sim *sim = shard->process.sim;
    for (struct link *link = sim->links; link != NULL; link = link->next) {
        if (link->shard_index != shard->index || !link->accepted || !link->shard_open)
            continue;
        link->shard_open = false;
        link->greeted = false;
        sim_file_let_go(&link->arena);
        link->outbox = (struct outbox){0};
        link_drop(&link->down);
        link_cut(&link->up, false);
    }
    shard->process.up = false;
    shard->process.incarnation++;
    shard->process.stopped_until_us = 0;
    shard->core = NULL;
    shard->answering = NULL;
    shard->nobody = (struct outbox){0};
    shard->frozen = NULL;
    for (struct stage_job *job = shard->jobs; job != NULL; job = job->next)
        sim_file_let_go(&job->file);
    shard->jobs = NULL;
    shard->file = NULL;
    shard->submit = shard->flushing = shard->lazy = shard->applying = shard->working = false;
    shard->applier_full = shard->turn_is_due = shard->in_abort = false;
}

void shard_crash(struct shard *shard)
{
    if (!shard->process.up)
        return;
    finish_by_chance(shard);
    disk_cut(&shard->disk, &shard->process.sim->random);
    SIM_TRACE(shard->process.sim, "shard %u crashes: %llu records are left", shard->index,
              (unsigned long long)shard->disk.count);
    if (random_chance(&shard->process.sim->random, 200))
        core_free(&shard->core); /* as a process that stops: whatever state it is in */
    forget_process(shard);
    heap_free_all(&shard->process.heap);
}

void shard_close(struct shard *shard)
{
    for (struct link *link = shard->process.sim->links; link != NULL; link = link->next) {
        if (link->shard_index == shard->index && link->accepted && link->shard_open)
            shard_close_session(shard, link);
    }
    if (shard->frozen != NULL || shard->jobs != NULL)
        sim_fail("shard %u is closed while its applier works", shard->index);
    core_free(&shard->core);
    disk_cut(&shard->disk, &shard->process.sim->random);
    forget_process(shard);
    if (shard->process.heap.count > 0)
        sim_fail("shard %u leaks %zu blocks of memory", shard->index, shard->process.heap.count);
}

bool shard_is_quiet(const struct shard *shard, const char **why)
{
    struct core_stats stats;
    *why = "it is down";
    if (!shard->process.up)
        return false;
    core_stats(shard->core, &stats);
    *why = stats.intents > 0                              ? "transactions are in doubt"
           : stats.done > 0                               ? "done ids are not forgotten"
           : stats.locks > 0                              ? "keys are locked"
           : stats.lock_waits > 0                         ? "somebody waits for a lock"
           : stats.stalled > 0                            ? "writes are stalled"
           : stats.parked_reads > 0                       ? "reads are parked"
           : shard->core->holds != NULL                   ? "contents are held"
           : shard->core->stages != NULL                  ? "staged contents are left"
           : stats.overlay_rows > 0                       ? "rows wait in memory"
           : shard->core->ledger.pending                  ? "votes are counted for contents"
           : shard->core->ledger.keys_pending != 0        ? "votes are counted for keys"
           : shard->jobs != NULL || shard->frozen != NULL ? "the applier works"
           : shard->disk.durable < shard->disk.count      ? "records are not durable"
                                                          : NULL;
    return *why == NULL;
}
