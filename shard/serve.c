/* shard/serve.c -- see serve.h. This file: the turn. What the core asks of the world is in serve_world.c, opening in recover.c, sockets in
 * sessions.c. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kv/clock.h"
#include "kv/log.h"
#include "serve_internal.h"
#include "wire/messages.h"

/* ---- space ---------------------------------------------------------------------------------------------------- */

static void read_usage(struct serve *serve)
{
    recovered_read(&serve->on);
    enum kv_err err = space_read(&serve->space, serve->on.store, loop_now_ms(serve->loop));
    if (err != KV_OK)
        recovered_die(err, "cannot read the store's usage");
}

/* ---- events --------------------------------------------------------------------------------------------------- */

static enum kv_err on_message(void *ctx, uint64_t session, enum kv_msg type, uint64_t request_id, struct kv_slice body)
{
    struct serve *serve = ctx;
    serve->messages++;
    serve->quiet_messages++;
    if (type == KV_MSG_STATS) {
        serve_answer_stats(serve, session, request_id);
        return KV_OK;
    }
    recovered_read(&serve->on);
    return core_message(serve->on.core, session, type, request_id, body);
}

static void on_input(void *ctx, struct kv_slice frames)
{
    struct serve *serve = ctx;
    recovered_read(&serve->on);
    serve_touch(serve, frames);
}

static void on_session_closed(void *ctx, uint64_t session)
{
    struct serve *serve = ctx;
    recovered_read(&serve->on);
    core_session_closed(serve->on.core, session);
}

static void empty_eventfd(int fd)
{
    uint64_t count;
    ssize_t got = read(fd, &count, sizeof(count));
    (void)got; /* EAGAIN: somebody read it already */
}

/* The turn's end looks at journal_durable. */
static void on_journal(void *arg, uint32_t events)
{
    struct serve *serve = arg;
    (void)events;
    empty_eventfd(journal_event_fd(serve->on.journal));
    if (journal_failed(serve->on.journal))
        kv_fatal("the journal cannot be written: nothing further can be acknowledged");
}

/* The order matters: 1. a new snapshot sees the rows, 2. the overlay lets go of them, 3. so does the journal. */
static void on_applied(struct serve *serve)
{
    uint64_t position = serve->frozen->meta.position;
    serve->applied = position;
    recovered_read_end(&serve->on);
    recovered_read(&serve->on);
    core_applied(serve->on.core, &serve->frozen);
    serve->applying = false;
    serve->frozen_ms = 0;
    journal_release(serve->on.journal, position);
    read_usage(serve);
}

static void on_staged(struct serve *serve, const struct applier_result *result)
{
    sessions_staging(serve->sessions, result->session, result->copied_bytes, true);
    kv_assert(serve->space.queued_bytes >= result->bytes);
    serve->space.queued_bytes -= result->bytes;
    if (result->err == KV_OK) {
        serve->space.staged_bytes += result->bytes;
        serve->written_bytes += result->bytes;
        core_staged(serve->on.core, result->object_id, result->offset + result->bytes);
    }
    struct kv_buf *buf = sessions_answer_begin(serve->sessions, result->session, KV_MSG_DONE, result->request_id, 0);
    kv_put_done(buf, result->err);
    sessions_answer_end(serve->sessions);
}

static void on_applier(void *arg, uint32_t events)
{
    struct serve *serve = arg;
    struct applier_result result;
    (void)events;
    empty_eventfd(applier_event_fd(serve->applier));
    recovered_read(&serve->on);
    while (applier_next(serve->applier, &result)) {
        if (result.kind == APPLIER_FAILED)
            recovered_die(result.err, result.what);
        if (result.kind == APPLIER_APPLIED)
            on_applied(serve);
        else
            on_staged(serve, &result);
    }
}

static void on_lazy(void *arg)
{
    ((struct serve *)arg)->submit = true;
}

/* Once for all refusals that follow upon one another: they come by the thousand. */
static void tell_full(struct serve *serve)
{
    bool full = serve_is_full(serve);
    if (full && !serve->told_full)
        kv_warn("no room is left on the disk or in MAP_SIZE: writes are refused, reads and deletes go on");
    else if (!full && serve->told_full)
        kv_info("no write was refused for want of room in %u s", SERVE_FULL_MS / 1000);
    serve->told_full = full;
}

static void on_tick(void *arg)
{
    struct serve *serve = arg;
    uint64_t now_ms = loop_now_ms(serve->loop);
    struct counters counters;
    recovered_read(&serve->on);
    serve_counters(serve, &counters); /* into the page: a crash loses the counts of one tick at most */
    if (now_ms - serve->space.usage_ms >= SERVE_USAGE_MS)
        read_usage(serve);
    bool full = applier_full(serve->applier) || !space_has_room(&serve->space, 0);
    core_tick(serve->on.core, now_ms, serve->options.shard_wait_ms / 2, full ? KV_NO_SPACE : KV_OVERLOADED);
    sessions_tick(serve->sessions, now_ms);
    tell_full(serve);
    if (serve->frozen == NULL && now_ms - serve->appended_ms >= SERVE_TRIM_MS)
        overlay_trim();
    loop_timer_arm(serve->loop, &serve->tick, SERVE_TICK_MS);
}

/* ---- generations ---------------------------------------------------------------------------------------------- */

/* Records of a generation that nobody waits for must reach the disk before it is applied. */
static void freeze_if_due(struct serve *serve)
{
    bool idle = serve->stopping || loop_now_ms(serve->loop) - serve->appended_ms >= SERVE_IDLE_MS;
    if (serve->frozen != NULL || !core_wants_freeze(serve->on.core, idle))
        return;
    recovered_read(&serve->on);
    serve->frozen = core_freeze(serve->on.core);
    serve->written_bytes += serve->space.waiting_bytes;
    serve->frozen_ms = serve->active_ms;
    serve->active_ms = 0;
    serve->submit = true;
}

static void apply_if_durable(struct serve *serve)
{
    if (serve->frozen == NULL || serve->applying || journal_durable(serve->on.journal) < serve->frozen->meta.position)
        return;
    serve->applying = true;
    applier_apply(serve->applier, serve->frozen);
}

/* ---- the end of a turn, and of all ------------------------------------------------------------------------------- */

/* Whether a stop has nothing left to do. With a full disk the journal keeps what cannot be applied. */
static bool stopped(struct serve *serve)
{
    if (!serve->stopping || journal_durable(serve->on.journal) < serve->position || applier_staging(serve->applier))
        return false;
    bool applied = serve->frozen == NULL && !core_wants_freeze(serve->on.core, true);
    if (!applied && !applier_full(serve->applier))
        return false;
    return sessions_flushed(serve->sessions) || loop_now_ms(serve->loop) - serve->stopping_ms >= SERVE_STOP_FLUSH_MS;
}

static void on_turn_end(void *arg)
{
    struct serve *serve = arg;
    freeze_if_due(serve);
    if (serve->submit) {
        /* one write alone would wait longer for two thread switches than others will for the disk */
        if (serve->messages != 1 || !journal_write_now(serve->on.journal))
            journal_submit(serve->on.journal);
        loop_timer_disarm(serve->loop, &serve->lazy);
        serve->submit = false;
    }
    serve->messages = 0;
    apply_if_durable(serve);
    sessions_flush(serve->sessions, journal_durable(serve->on.journal));
    space_read_waiting(&serve->space, serve->on.core);
    recovered_read_end(&serve->on); /* an older snapshot keeps pages from being used again */
    serve_rest_if_due(serve);
    if (stopped(serve))
        loop_stop(serve->loop);
}

/* ---- life ----------------------------------------------------------------------------------------------------- */

static void watch(struct serve *serve, struct loop_watch *loop_watch, int fd,
                  void (*on_ready)(void *arg, uint32_t events))
{
    if (loop_add(serve->loop, loop_watch, fd, EPOLLIN, on_ready, serve) != KV_OK)
        kv_fatal("cannot watch descriptor %d: %m", fd);
}

/* Gives up what was staged and never adopted by the last process. */
static enum kv_err start_core(struct serve *serve, char *why, size_t why_bytes)
{
    struct kv_buf staged = {0};
    recovered_read(&serve->on);
    enum kv_err err = store_get_staged(serve->on.store, &staged);
    if (err == KV_OK)
        core_start(serve->on.core, (const uint64_t *)(const void *)staged.data, staged.bytes / sizeof(uint64_t));
    else
        snprintf(why, why_bytes, "cannot read the ids of staged content: %s", kv_err_text(err));
    kv_buf_free(&staged);
    return err;
}

static void start_loop(struct serve *serve)
{
    serve->sessions = sessions_new(&(struct sessions_options){.loop = serve->loop,
                                                              .listen_fd = serve->options.listen_fd,
                                                              .shard_index = serve->options.recover.core.shard_index,
                                                              .shard_count = serve->options.recover.core.shard_count,
                                                              .epoch = serve->options.epoch,
                                                              .ctx = serve,
                                                              .on_input = on_input,
                                                              .on_message = on_message,
                                                              .on_closed = on_session_closed});
    watch(serve, &serve->journal_watch, journal_event_fd(serve->on.journal), on_journal);
    watch(serve, &serve->applier_watch, applier_event_fd(serve->applier), on_applier);
    serve->tick = (struct loop_timer){.on_due = on_tick, .arg = serve};
    serve->lazy = (struct loop_timer){.on_due = on_lazy, .arg = serve};
    loop_timer_arm(serve->loop, &serve->tick, SERVE_TICK_MS);
    loop_on_turn_end(serve->loop, on_turn_end, serve);
    read_usage(serve);
    space_read_waiting(&serve->space, serve->on.core);
    recovered_read_end(&serve->on);
}

enum kv_err serve_open(const struct serve_options *options, char *why, size_t why_bytes, struct serve **out)
{
    struct serve *serve = kv_alloc_zero(1, sizeof(*serve));
    struct core_world world = serve_world(serve);
    serve->options = *options;
    serve->space.path = serve->options.recover.path;
    enum kv_err err = recover(&options->recover, &world, why, why_bytes, &serve->on);
    if (err != KV_OK) {
        free(serve);
        return err;
    }
    struct applier_world applier_world = applier_store_world(serve->on.store);
    serve->loop = loop_new();
    serve->started_ms = serve->quiet_ms = kv_clock_ms();
    serve->written_bytes = SERVE_REST_BYTES; /* what was replayed, perhaps */
    serve->carry = counters_carry_open(options->counters);
    serve->frozen = serve->on.frozen;
    serve->on.frozen = NULL;
    serve->position = journal_durable(serve->on.journal);
    serve->applied = serve->position - serve->on.records; /* positions number the records */
    serve->applier = applier_new(&applier_world);
    err = start_core(serve, why, why_bytes);
    if (err != KV_OK) {
        serve_close(&serve);
        return err;
    }
    if (core_wants_freeze(serve->on.core, true)) /* what was replayed */
        serve->active_ms = serve->started_ms;
    start_loop(serve);
    *out = serve;
    return KV_OK;
}

struct loop *serve_loop(struct serve *serve)
{
    return serve->loop;
}

void serve_run(struct serve *serve)
{
    loop_run(serve->loop);
}

void serve_stop(struct serve *serve)
{
    if (serve->stopping)
        return;
    serve->stopping = true;
    serve->stopping_ms = loop_now_ms(serve->loop);
    serve->submit = true;
    sessions_stop(serve->sessions);
}

/* The applier first: it reads the frozen generation, and the store. */
void serve_close(struct serve **serve_at)
{
    struct serve *serve = *serve_at;
    if (serve == NULL)
        return;
    loop_remove(serve->loop, &serve->journal_watch);
    loop_remove(serve->loop, &serve->applier_watch);
    sessions_free(&serve->sessions);
    applier_free(&serve->applier);
    recovered_close(&serve->on);
    core_generation_free(&serve->frozen);
    loop_free(&serve->loop);
    free(serve);
    *serve_at = NULL;
}
