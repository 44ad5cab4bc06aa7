/* shard/core_stage.c -- large contents on their way in: STAGE, STAGE_DATA, STAGE_FILE, STAGE_DROP. Their pieces are durable before a
 * transaction refers to them; what none adopts goes with its session, or with the next start. */
#include "core_internal.h"

#include <stdlib.h>

#include "kv/log.h"
#include "rows.h"

struct stage *core_find_stage(struct core *core, uint64_t object_id)
{
    struct stage *stage = NULL;
    HASH_FIND(hh, core->stages, &object_id, sizeof object_id, stage);
    return stage;
}

static void remove_stage(struct core *core, struct stage *stage)
{
    HASH_DEL(core->stages, stage);
    free(stage);
}

/* Gives the blob rows back as well: nothing durable refers to them. */
static void drop_stage(struct core *core, struct stage *stage)
{
    core->world.unstage(core->world.ctx, stage->object_id);
    remove_stage(core, stage);
}

void core_adopt_stage(struct core *core, const struct kv_hash *hash, uint64_t object_id, bool redundant)
{
    struct stage *stage = core_find_stage(core, object_id);
    if (stage == NULL || !kv_hash_equal(&stage->hash, hash))
        return;
    if (redundant)
        drop_stage(core, stage);
    else
        remove_stage(core, stage);
}

enum kv_err core_on_stage(struct core *core, const struct request *request)
{
    struct kv_msg_stage message;
    if (kv_get_stage(request->body, &message) != KV_OK || message.stored_bytes <= KV_INLINE_BYTES_MAX)
        return KV_INVALID;
    struct kv_object object;
    uint64_t position;
    struct kv_msg_staged answer = {.err = KV_OK};
    answer.existed = ledger_get_object(&core->ledger, &message.hash, &object, &position) == KV_OK;
    if (!answer.existed) {
        struct stage *stage = kv_alloc_zero(1, sizeof *stage);
        stage->object_id = core->ledger.object_id_next++;
        stage->session = request->session;
        stage->hash = message.hash;
        stage->size = message.size;
        stage->stored_bytes = message.stored_bytes;
        HASH_ADD(hh, core->stages, object_id, sizeof stage->object_id, stage);
        answer.object_id = stage->object_id;
    }
    kv_put_staged(core_answer(core, request, KV_MSG_STAGED, 0), &answer);
    core_answered(core);
    return KV_OK;
}

static enum kv_err stage_piece(struct core *core, const struct request *request, const struct store_piece *piece)
{
    uint64_t bytes = store_piece_bytes(piece);
    struct stage *stage = core_find_stage(core, piece->object_id);
    if (stage == NULL || stage->session != request->session || stage->received != piece->offset) {
        core_answer_done(core, request, KV_STALE, 0); /* staged before a restart, or repeated out of order */
        return KV_OK;
    }
    bool last = stage->received + bytes == stage->stored_bytes;
    if (bytes == 0 || bytes > stage->stored_bytes - stage->received || (!last && bytes % KV_BLOB_ROW_BYTES != 0))
        return KV_INVALID;
    if (!core->world.room(core->world.ctx, bytes, false)) {
        core_answer_done(core, request, KV_NO_SPACE, 0);
        return KV_OK;
    }
    stage->received += bytes;
    core->world.stage(core->world.ctx, request->session, request->request_id, piece);
    return KV_OK;
}

enum kv_err core_on_stage_data(struct core *core, const struct request *request)
{
    struct kv_msg_stage_data data;
    if (kv_get_stage_data(request->body, &data) != KV_OK)
        return KV_INVALID;
    struct store_piece piece = {.object_id = data.object_id, .offset = data.offset, .bytes = data.bytes};
    return stage_piece(core, request, &piece);
}

enum kv_err core_on_stage_file(struct core *core, const struct request *request)
{
    struct kv_msg_stage_file data;
    if (kv_get_stage_file(request->body, &data) != KV_OK)
        return KV_INVALID;
    struct store_piece piece = {.object_id = data.object_id, .offset = data.offset, .bytes = data.bytes};
    piece.file.fd = -1; /* the rim has it */
    piece.file.offset = data.file_offset;
    piece.file.bytes = data.file_bytes;
    return stage_piece(core, request, &piece);
}

void core_staged(struct core *core, uint64_t object_id, uint64_t bytes)
{
    struct stage *stage = core_find_stage(core, object_id);
    if (stage != NULL && bytes > stage->durable)
        stage->durable = bytes;
}

enum kv_err core_on_stage_drop(struct core *core, const struct request *request)
{
    uint64_t object_id;
    if (kv_get_id(request->body, &object_id) != KV_OK)
        return KV_INVALID;
    struct stage *stage = core_find_stage(core, object_id);
    if (stage != NULL && stage->session == request->session)
        drop_stage(core, stage);
    return KV_OK;
}

/* ---- sessions and starts -------------------------------------------------------------------------------------- */

void core_close_stages(struct core *core, uint64_t session)
{
    struct stage *stage, *after_stage;
    HASH_ITER(hh, core->stages, stage, after_stage) {
        if (stage->session == session)
            drop_stage(core, stage);
    }
}

void core_clear_stages(struct core *core)
{
    struct stage *stage, *after_stage;
    HASH_ITER(hh, core->stages, stage, after_stage) {
        remove_stage(core, stage);
    }
}

/* A replayed record adopted this staged content: its object row is one of these, which are not applied yet. */
static bool is_adopted(const struct overlay_row **rows, size_t count, uint64_t object_id)
{
    for (size_t i = 0; i < count; i++) {
        struct kv_object object;
        if (!rows[i]->tombstone && row_decode_object(overlay_value(rows[i]), &object) == KV_OK &&
            object.object_id == object_id)
            return true;
    }
    return false;
}

void core_start(struct core *core, const uint64_t *staged, size_t staged_count)
{
    if (staged_count == 0)
        return;
    const struct ledger *ledger = &core->ledger;
    size_t count, half_count = 0;
    const struct overlay_row **rows = overlay_sorted(ledger->active, OVERLAY_OBJECTS, &count), **half = NULL;
    if (ledger->frozen != NULL)
        half = overlay_sorted(ledger->frozen, OVERLAY_OBJECTS, &half_count);
    for (size_t i = 0; i < staged_count; i++) {
        if (staged[i] >= core->ledger.object_id_next)
            core->ledger.object_id_next = staged[i] + 1;
        if (!is_adopted(rows, count, staged[i]) && !is_adopted(half, half_count, staged[i]))
            core->world.unstage(core->world.ctx, staged[i]);
    }
    free(half);
    free(rows);
}
