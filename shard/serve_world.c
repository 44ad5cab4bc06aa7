/* shard/serve_world.c -- what the core asks of the world (core.h), but for reads, which recover.c has: answers go to sessions, records
 * to the journal, pieces of large contents to the applier. See serve.h. */
#include "serve_internal.h"

static struct kv_buf *world_answer_begin(void *ctx, uint64_t session, enum kv_msg type, uint64_t request_id,
                                         uint64_t position)
{
    return sessions_answer_begin(((struct serve *)ctx)->sessions, session, type, request_id, position);
}

static void world_answer_end(void *ctx)
{
    sessions_answer_end(((struct serve *)ctx)->sessions);
}

static uint64_t world_append(void *ctx, enum core_record type, struct kv_slice body, bool lazy)
{
    struct serve *serve = ctx;
    serve->position = journal_append(serve->on.journal, type, body);
    serve->appended_ms = loop_now_ms(serve->loop);
    if (serve->active_ms == 0)
        serve->active_ms = serve->appended_ms;
    serve->space.waiting_bytes += 2 * body.bytes;
    if (!lazy)
        serve->submit = true;
    else if (!loop_timer_armed(&serve->lazy))
        loop_timer_arm(serve->loop, &serve->lazy, SERVE_LAZY_MS);
    return serve->position;
}

static bool world_room(void *ctx, uint64_t bytes, bool frees)
{
    struct serve *serve = ctx;
    bool room = journal_room(serve->on.journal, bytes, frees) &&
                (frees || (space_has_room_now(&serve->space, bytes) && !applier_full(serve->applier)));
    if (!room)
        serve->refused_ms = loop_now_ms(serve->loop);
    return room;
}

static void world_stage(void *ctx, uint64_t session, uint64_t request_id, const struct store_piece *piece)
{
    struct serve *serve = ctx;
    struct store_piece own = *piece;
    if (piece->file.bytes > 0)
        own.file.fd = sessions_take_file(serve->sessions);
    sessions_staging(serve->sessions, session, piece->bytes.bytes, false);
    serve->space.queued_bytes += store_piece_bytes(piece);
    applier_stage(serve->applier, session, request_id, &own);
}

static void world_unstage(void *ctx, uint64_t object_id)
{
    applier_unstage(((struct serve *)ctx)->applier, object_id);
}

static uint8_t *world_slot(void *ctx, uint64_t session, uint64_t first)
{
    return sessions_slot(((struct serve *)ctx)->sessions, session, first);
}

static void world_failed(void *ctx, enum kv_err err, const char *what)
{
    (void)ctx;
    recovered_die(err, what);
}

struct core_world serve_world(struct serve *serve)
{
    struct core_world world = {.ctx = serve,
                               .answer_begin = world_answer_begin,
                               .answer_end = world_answer_end,
                               .append = world_append,
                               .room = world_room,
                               .stage = world_stage,
                               .unstage = world_unstage,
                               .failed = world_failed,
                               .slot = world_slot};
    recovered_world(&world);
    return world;
}
