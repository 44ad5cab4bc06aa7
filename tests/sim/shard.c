/* tests/sim/shard.c -- see shard.h. This file: the world of the core, turns, sessions. Life is in shard_life.c. */
#include "shard.h"

#include <stdlib.h>

#include "file.h"
#include "kv/log.h"
#include "shard_life.h"
#include "wire/messages.h"

/* ---- the end of a turn ---------------------------------------------------------------------------------------- */

static void on_flushed(void *arg)
{
    struct shard *shard = arg;
    struct sim *sim = shard->process.sim;
    if (shard->disk.full == 2) {
        sim_at(sim, 5 * SIM_MS, &shard->process, false, on_flushed, shard);
        return;
    }
    shard->flushing = false;
    shard->disk.durable = shard->flush_upto;
    shard_turn_end(shard);
}

static void flush(struct shard *shard)
{
    struct sim *sim = shard->process.sim;
    if (!shard->submit || shard->flushing)
        return;
    shard->submit = false;
    shard->flushing = true;
    shard->flush_upto = shard->disk.count;
    uint64_t delay_us = random_below(&sim->random, sim->config.flush_us_max + 1);
    if (random_chance(&sim->random, 20))
        delay_us += random_below(&sim->random, 30 * SIM_MS);
    sim_at(sim, delay_us, &shard->process, false, on_flushed, shard);
}

static void freeze_if_due(struct shard *shard)
{
    struct sim *sim = shard->process.sim;
    bool idle = sim->now_us - shard->appended_us >= 500 * SIM_MS || random_chance(&sim->random, 10);
    if (shard->frozen != NULL || !core_wants_freeze(shard->core, idle))
        return;
    shard->frozen = core_freeze(shard->core);
    shard->submit = true;
}

static void on_half_applied(void *arg)
{
    struct shard *shard = arg;
    if (shard->applying && shard->disk.full == 0)
        disk_apply_half(&shard->disk, shard->frozen, &shard->process.sim->random);
}

/* A full disk refuses it, to be tried again. */
static void on_applied(void *arg)
{
    struct shard *shard = arg;
    struct sim *sim = shard->process.sim;
    shard->applier_full = shard->disk.full > 0;
    if (shard->applier_full) {
        sim_at(sim, 100 * SIM_MS, &shard->process, false, on_applied, shard);
        return;
    }
    disk_apply(&shard->disk, shard->frozen);
    if (random_chance(&sim->random, 500))
        disk_sweep(&shard->disk, shard->frozen->held, shard->frozen->held_count, random_below(&sim->random, 4));
    core_applied(shard->core, &shard->frozen);
    shard->applying = false;
    shard_turn_end(shard);
}

static void apply_if_durable(struct shard *shard)
{
    struct sim *sim = shard->process.sim;
    if (shard->frozen == NULL || shard->applying || shard->disk.durable < shard->frozen->meta.position)
        return;
    shard->applying = true;
    uint64_t delay_us = random_below(&sim->random, 20 * SIM_MS);
    if (random_chance(&sim->random, 300))
        sim_at(sim, random_below(&sim->random, delay_us + 1), &shard->process, false, on_half_applied, shard);
    sim_at(sim, delay_us, &shard->process, false, on_applied, shard);
}

static void send_answers(struct shard *shard, struct link *link)
{
    outbox_release(&link->outbox, shard->disk.durable);
    struct kv_slice out = outbox_peek(&link->outbox);
    if (out.bytes > 0)
        link_send(&link->up, out, NULL);
    outbox_consume(&link->outbox, out.bytes);
    if (link->leaving)
        shard_close_session(shard, link);
}

void shard_turn_end(struct shard *shard)
{
    freeze_if_due(shard);
    flush(shard);
    apply_if_durable(shard);
    for (struct link *link = shard->process.sim->links; link != NULL; link = link->next) {
        if (link->shard_index == shard->index && link->accepted && link->shard_open)
            send_answers(shard, link);
    }
}

static void on_turn_end(void *arg)
{
    struct shard *shard = arg;
    shard->turn_is_due = false;
    shard_turn_end(shard);
}

/* Some turns take in many messages before they end. */
static void turn(struct shard *shard)
{
    struct sim *sim = shard->process.sim;
    if (shard->turn_is_due)
        return;
    if (random_chance(&sim->random, 600)) {
        shard_turn_end(shard);
        return;
    }
    shard->turn_is_due = true;
    sim_at(sim, random_below(&sim->random, 500), &shard->process, false, on_turn_end, shard);
}

/* ---- sessions ------------------------------------------------------------------------------------------------- */

void shard_close_session(struct shard *shard, struct link *link)
{
    bool greeted = link->greeted;
    uint64_t session = link->session;
    link->shard_open = false;
    link->greeted = false;
    sim_file_let_go(&link->arena);
    outbox_free(&link->outbox);
    link_drop(&link->down);
    link_cut(&link->up, true);
    SIM_TRACE(shard->process.sim, "shard %u closes session %llu", shard->index, (unsigned long long)session);
    if (greeted)
        core_session_closed(shard->core, session);
}

/* Before the newcomer hears from us, older routers and the thread's own last link are gone. */
static void fence(struct shard *shard, const struct link *newcomer, const struct kv_msg_hello *hello)
{
    shard->epoch = hello->epoch > shard->epoch ? hello->epoch : shard->epoch;
    if (shard->process.sim->fault == FAULT_NO_FENCING)
        return;
    for (struct link *link = shard->process.sim->links; link != NULL; link = link->next) {
        bool here = link != newcomer && link->shard_index == shard->index && link->shard_open && link->greeted;
        bool same = link->epoch == hello->epoch && link->thread_index == hello->thread_index;
        if (here && (link->epoch < hello->epoch || same))
            shard_close_session(shard, link);
    }
}

static void greet(struct shard *shard, struct link *link, const struct kv_frame *frame)
{
    struct kv_msg_hello hello;
    if (frame->type != KV_MSG_HELLO || kv_get_hello(frame->body, &hello) != KV_OK)
        sim_fail("a session of shard %u does not begin with HELLO", shard->index);
    if (hello.epoch < shard->epoch && shard->process.sim->fault != FAULT_NO_FENCING) {
        link->leaving = true;
    } else {
        fence(shard, link, &hello);
        link->epoch = hello.epoch;
        link->greeted = true;
    }
    uint64_t epoch = shard->process.sim->fault == FAULT_NO_FENCING ? hello.epoch : shard->epoch;
    kv_put_hello(outbox_begin(&link->outbox, KV_MSG_HELLO, frame->request_id, 0),
                 &(struct kv_msg_hello){.version = KV_WIRE_VERSION,
                                        .role = KV_ROLE_SHARD,
                                        .shard_index = shard->index,
                                        .shard_count = shard->process.sim->config.shard_count,
                                        .epoch = epoch});
    outbox_end(&link->outbox);
}

static void accept_link(struct shard *shard, struct link *link)
{
    link->accepted = true;
    link->shard_open = true;
    link->session = ++shard->session_last;
}

static void take_frame(struct shard *shard, struct link *link, struct kv_slice bytes, struct body_file *file)
{
    struct kv_frame frame;
    size_t used;
    if (kv_frame_peek(bytes, KV_ROLE_ROUTER, &frame, &used) != KV_OK)
        sim_fail("shard %u got a broken frame", shard->index);
    SIM_TRACE(shard->process.sim, "shard %u <- %s %llu (session %llu)", shard->index, kv_msg_name(frame.type),
              (unsigned long long)frame.request_id, (unsigned long long)link->session);
    if ((frame.type == KV_MSG_STAGE_FILE || frame.type == KV_MSG_ARENA) != (file != NULL))
        sim_fail("a %s came %s a descriptor", kv_msg_name(frame.type), file != NULL ? "with" : "without");
    if (!link->greeted) {
        greet(shard, link, &frame);
        return;
    }
    if (frame.type == KV_MSG_ARENA) {
        sim_file_let_go(&link->arena);
        link->arena = sim_file_keep(file);
        return;
    }
    shard->file = file;
    shard->in_abort = frame.type == KV_MSG_ABORT;
    if (core_message(shard->core, link->session, frame.type, frame.request_id, frame.body) != KV_OK)
        sim_fail("shard %u refused a %s as malformed", shard->index, kv_msg_name(frame.type));
    shard->in_abort = false;
    shard->file = NULL;
}

void shard_receive(struct link *link, struct kv_slice bytes, struct body_file *file)
{
    struct shard *shard = link->sim->shards[link->shard_index];
    if (!link->accepted)
        accept_link(shard, link);
    if (link->leaving)
        return;
    if (bytes.bytes == 0)
        shard_close_session(shard, link);
    else
        take_frame(shard, link, bytes, file);
    turn(shard);
}

/* ---- the world of the core ------------------------------------------------------------------------------------ */

static struct link *link_of(struct shard *shard, uint64_t session)
{
    for (struct link *link = shard->process.sim->links; link != NULL; link = link->next) {
        if (link->shard_index == shard->index && link->shard_open && link->session == session)
            return link;
    }
    return NULL;
}

static struct outbox *outbox_of(struct shard *shard, uint64_t session)
{
    struct link *link = link_of(shard, session);
    return link == NULL ? &shard->nobody : &link->outbox;
}

struct kv_buf *shard_answer_begin(void *ctx, uint64_t session, enum kv_msg type, uint64_t request_id, uint64_t position)
{
    struct shard *shard = ctx;
    struct sim *sim = shard->process.sim;
    kv_assert(shard->answering == NULL && position <= shard->disk.count);
    if (sim->fault == FAULT_VOTE_BEFORE_FLUSH && type == KV_MSG_VOTE)
        position = 0;
    shard->answering = outbox_of(shard, session);
    SIM_TRACE(sim, "shard %u -> %s %llu (session %llu) when %llu of %llu is durable", shard->index, kv_msg_name(type),
              (unsigned long long)request_id, (unsigned long long)session, (unsigned long long)position,
              (unsigned long long)shard->disk.count);
    return outbox_begin(shard->answering, type, request_id, position);
}

void shard_answer_end(void *ctx)
{
    struct shard *shard = ctx;
    kv_assert(shard->answering != NULL);
    outbox_end(shard->answering);
    shard->answering = NULL;
    outbox_free(&shard->nobody);
}

uint8_t *shard_slot(void *ctx, uint64_t session, uint64_t first)
{
    const struct link *link = link_of(ctx, session);
    return link == NULL || link->arena == NULL ? NULL : sim_file_data(link->arena) + first * KV_ARENA_UNIT_BYTES;
}

static void on_lazy(void *arg)
{
    struct shard *shard = arg;
    shard->lazy = false;
    shard->submit = true;
    shard_turn_end(shard);
}

uint64_t shard_append(void *ctx, enum core_record type, struct kv_slice body, bool lazy)
{
    struct shard *shard = ctx;
    struct sim *sim = shard->process.sim;
    uint64_t position = disk_append(&shard->disk, type, body, sim_stamp(sim));
    shard->appended_us = sim->now_us;
    if (!lazy)
        shard->submit = true;
    else if (!shard->lazy) {
        shard->lazy = true;
        sim_at(sim, 10 * SIM_MS, &shard->process, false, on_lazy, shard);
    }
    return position;
}

bool shard_room(void *ctx, uint64_t bytes, bool frees)
{
    const struct shard *shard = ctx;
    (void)bytes;
    return shard->disk.full == 0 ? frees || !shard->applier_full : shard->disk.full == 1 && frees;
}

/* ---- staged contents ------------------------------------------------------------------------------------------ */

static void run_job(void *arg);

static void next_job(struct shard *shard)
{
    struct sim *sim = shard->process.sim;
    if (shard->working || shard->jobs == NULL)
        return;
    shard->working = true;
    sim_at(sim, random_below(&sim->random, 3 * SIM_MS), &shard->process, false, run_job, shard);
}

static void report_staged(struct shard *shard, const struct stage_job *job, enum kv_err err)
{
    if (err == KV_OK)
        core_staged(shard->core, job->object_id, job->offset + job->bytes + job->file_bytes);
    kv_put_done(shard_answer_begin(shard, job->session, KV_MSG_DONE, job->request_id, 0), err);
    shard_answer_end(shard);
}

static void run_job(void *arg)
{
    struct shard *shard = arg;
    struct stage_job *job = shard->jobs;
    shard->working = false;
    shard->jobs = job->next;
    bool full = shard->disk.full > 0;
    if (!full)
        shard_do_job(shard, job);
    shard->disk.staged_left += full && job->unstage;
    if (!job->unstage)
        report_staged(shard, job, full ? KV_NO_SPACE : KV_OK);
    sim_file_let_go(&job->file);
    free(job);
    next_job(shard);
    shard_turn_end(shard);
}

static void add_job(struct shard *shard, const struct stage_job *head, struct kv_slice bytes)
{
    struct stage_job *job = kv_alloc(sizeof *job + bytes.bytes), **at = &shard->jobs;
    *job = *head;
    if (bytes.bytes > 0)
        memcpy(job->data, bytes.data, bytes.bytes);
    while (*at != NULL)
        at = &(*at)->next;
    *at = job;
    next_job(shard);
}

void shard_stage(void *ctx, uint64_t session, uint64_t request_id, const struct store_piece *piece)
{
    struct shard *shard = ctx;
    struct stage_job head = {.session = session,
                             .request_id = request_id,
                             .object_id = piece->object_id,
                             .offset = piece->offset,
                             .file_offset = piece->file.offset,
                             .file_bytes = piece->file.bytes,
                             .bytes = piece->bytes.bytes};
    if (piece->file.bytes > 0)
        head.file = sim_file_keep(shard->file);
    add_job(shard, &head, piece->bytes);
}

void shard_unstage(void *ctx, uint64_t object_id)
{
    struct stage_job head = {.unstage = true, .object_id = object_id};
    add_job(ctx, &head, kv_slice(NULL, 0));
}
