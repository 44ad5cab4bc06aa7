/* shard/core_read.c -- the reading half of core.h: READ, OPEN, FETCH, CLOSE, REFS, LIST. A read of a key
 * whose intent is undecided waits for the decision; no other read waits. */
#include "core_internal.h"

#include <stdlib.h>
#include <utlist.h>

#include "kv/log.h"
#include "kv/placement.h"
#include "list.h"
#include "rows.h"

static void park(struct core *core, struct intent *intent, const struct request *request)
{
    struct parked *parked = parked_new(request->session, request->type, request->request_id, request->body);
    parked->sequence_max = request->sequence_max;
    DL_APPEND(intent->parked, parked);
    core->parked_count++;
}

/* Stored bytes on their way into an answer: one buffer for all, since an allocation per read is a tenth of a small one. */
static struct kv_buf *bytes_begin(struct core *core)
{
    core->bytes.bytes = 0;
    return &core->bytes;
}

static void bytes_end(struct core *core)
{
    if (core->bytes.capacity > KV_INLINE_BYTES_MAX)
        kv_buf_free(&core->bytes);
}

/* The slot as a buffer, which has room for what its message asks for and so never grows; without data: there is none. */
static struct kv_buf slot_named(struct core *core, uint64_t session, struct kv_msg_slot slot, uint64_t bytes_max)
{
    if (!slot.named)
        return (struct kv_buf){0};
    return (struct kv_buf){.data = core->world.slot(core->world.ctx, session, slot.first), .capacity = bytes_max};
}

/* ---- objects -------------------------------------------------------------------------------------------------- */

static struct hold *find_hold(struct core *core, uint64_t session, uint64_t object_id)
{
    struct hold *hold = NULL, wanted = {.id = {session, object_id}};
    HASH_FIND(hh, core->holds, &wanted.id, sizeof wanted.id, hold);
    return hold;
}

static void take_hold(struct core *core, uint64_t session, uint64_t object_id)
{
    struct hold *hold = find_hold(core, session, object_id);
    if (hold == NULL) {
        hold = kv_alloc_zero(1, sizeof *hold);
        hold->id.session = session;
        hold->id.object_id = object_id;
        HASH_ADD(hh, core->holds, id, sizeof hold->id, hold);
    }
    hold->count++;
}

/* Stored bytes that do not lie in the content's row. */
static enum kv_err read_bytes(struct core *core, uint64_t wanted, struct kv_buf *bytes, struct kv_object *object)
{
    enum kv_err err = ledger_get_bytes(&core->ledger, object, 0, wanted, bytes);
    if (err == KV_OK) {
        object->bytes = kv_buf_peek(bytes);
        return KV_OK;
    }
    kv_error("object %llu: %s", (unsigned long long)object->object_id, kv_err_text(err));
    return KV_CORRUPT;
}

/* Looks the content up. What lies in its row comes along. */
static enum kv_err open_object(struct core *core, const struct kv_hash *hash, struct kv_object *out, uint64_t *position)
{
    enum kv_err err = ledger_open_object(&core->ledger, hash, out, position);
    if (err == KV_OK)
        out->refs = ledger_refs(&core->ledger, hash, out->refs);
    return err;
}

/* All of its bytes if they are not more than that, else none: the router asks for those when it knows how many there are. */
static enum kv_err open_with_row(struct core *core, const struct kv_hash *hash, uint64_t bytes_max,
                                 struct kv_buf *bytes, struct kv_object *out, uint64_t *position)
{
    enum kv_err err = open_object(core, hash, out, position);
    if (err != KV_OK)
        return err;
    if (bytes_max == 0)
        out->bytes = kv_slice(NULL, 0);
    else if (out->object_id != 0 && out->stored_bytes <= bytes_max)
        err = read_bytes(core, out->stored_bytes, bytes, out);
    return err;
}

enum kv_err core_on_read(struct core *core, const struct request *request)
{
    struct kv_msg_read read;
    if (kv_get_read(request->body, &read) != KV_OK)
        return KV_INVALID;
    struct lock_state lock = locks_state(core->locks, read.key);
    struct intent *intent = lock.writes ? intents_find(&core->intents, lock.holder) : NULL;
    if (intent != NULL && intent->sequence <= request->sequence_max) {
        park(core, intent, request);
        return KV_OK;
    }
    core->stats.gets++;
    struct kv_msg_row answer = {.err = KV_NOT_FOUND};
    struct kv_buf *bytes = bytes_begin(core);
    uint64_t position, object_position = 0;
    answer.has_row = ledger_get_key(&core->ledger, read.key, &answer.row, &position) == KV_OK;
    if (answer.has_row) {
        answer.err = KV_OK;
        struct kv_slice hash = kv_hash_slice(&answer.row.hash);
        if (kv_shard_of(hash, core->options.shard_count) == core->options.shard_index) {
            answer.err = open_with_row(core, &answer.row.hash, read.bytes_max, bytes, &answer.object, &object_position);
            answer.has_object = answer.err == KV_OK;
            if (answer.err == KV_NOT_FOUND)
                answer.err = KV_CORRUPT; /* a key refers to it */
        }
    }
    kv_put_row(core_answer(core, request, KV_MSG_ROW, position > object_position ? position : object_position),
               &answer);
    core_answered(core);
    bytes_end(core);
    return KV_OK;
}

/* The first bytes, into the slot or into the answer, with a hold when some are missing. Small contents come whole. */
static enum kv_err read_first(struct core *core, uint64_t session, const struct kv_msg_open *open, struct kv_buf *bytes,
                              struct kv_msg_object *answer)
{
    struct kv_object *object = &answer->object;
    uint64_t wanted = object->stored_bytes;
    if (wanted > KV_INLINE_BYTES_MAX && wanted > open->bytes_max)
        wanted = open->bytes_max;
    struct kv_buf slot = slot_named(core, session, open->slot, open->bytes_max);
    bool into_slot = slot.data != NULL && wanted <= open->bytes_max;
    enum kv_err err = read_bytes(core, wanted, into_slot ? &slot : bytes, object);
    if (err != KV_OK)
        return err;
    if (into_slot) {
        answer->slot_bytes = wanted;
        object->bytes = kv_slice(NULL, 0);
    }
    object->held = wanted < object->stored_bytes;
    if (object->held)
        take_hold(core, session, object->object_id);
    return KV_OK;
}

enum kv_err core_on_open(struct core *core, const struct request *request)
{
    struct kv_msg_open open;
    if (kv_get_open(request->body, &open) != KV_OK)
        return KV_INVALID;
    struct kv_msg_object answer = {0};
    struct kv_buf *bytes = bytes_begin(core);
    uint64_t position;
    answer.err = open_object(core, &open.hash, &answer.object, &position);
    if (open.bytes_max == 0)
        answer.object.bytes = kv_slice(NULL, 0);
    else if (answer.err == KV_OK && answer.object.object_id != 0)
        answer.err = read_first(core, request->session, &open, bytes, &answer);
    kv_put_object(core_answer(core, request, KV_MSG_OBJECT, position), &answer);
    core_answered(core);
    bytes_end(core);
    return KV_OK;
}

/* The bytes go right where they leave from: into the answer, */
static void put_piece(struct core *core, const struct kv_msg_fetch *fetch, struct kv_buf *answer)
{
    size_t begin = answer->bytes;
    kv_put_piece_begin(answer, fetch->bytes_max);
    enum kv_err err = core->world.get_blob(core->world.ctx, fetch->object_id, fetch->offset, fetch->bytes_max, answer);
    if (err == KV_OK)
        return;
    answer->bytes = begin;
    kv_put_piece(answer, &(struct kv_msg_piece){.err = err});
}

/* or into memory that the router sends them from. */
static void put_piece_into(struct core *core, const struct kv_msg_fetch *fetch, struct kv_buf slot,
                           struct kv_buf *answer)
{
    const uint8_t *begin = slot.data;
    enum kv_err err = core->world.get_blob(core->world.ctx, fetch->object_id, fetch->offset, fetch->bytes_max, &slot);
    kv_assert(slot.data == begin); /* it had room: it never grew */
    kv_put_piece(answer, &(struct kv_msg_piece){.err = err, .in_slot = err == KV_OK, .slot_bytes = slot.bytes});
}

enum kv_err core_on_fetch(struct core *core, const struct request *request)
{
    struct kv_msg_fetch fetch;
    if (kv_get_fetch(request->body, &fetch) != KV_OK)
        return KV_INVALID;
    struct kv_buf slot = slot_named(core, request->session, fetch.slot, fetch.bytes_max);
    struct kv_buf *answer = core_answer(core, request, KV_MSG_PIECE, 0);
    if (find_hold(core, request->session, fetch.object_id) == NULL)
        kv_put_piece(answer, &(struct kv_msg_piece){.err = KV_STALE});
    else if (slot.data != NULL)
        put_piece_into(core, &fetch, slot, answer);
    else
        put_piece(core, &fetch, answer);
    core_answered(core);
    return KV_OK;
}

enum kv_err core_on_close(struct core *core, const struct request *request)
{
    uint64_t object_id;
    if (kv_get_id(request->body, &object_id) != KV_OK)
        return KV_INVALID;
    struct hold *hold = find_hold(core, request->session, object_id);
    if (hold != NULL && --hold->count == 0) {
        HASH_DEL(core->holds, hold);
        free(hold);
    }
    return KV_OK;
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

void core_held(const struct core *core, uint64_t **ids, size_t *count)
{
    size_t total = HASH_COUNT(core->holds), unique = 0;
    uint64_t *out = kv_alloc(total * sizeof *out + 1);
    size_t at = 0;
    for (const struct hold *hold = core->holds; hold != NULL; hold = hold->hh.next)
        out[at++] = hold->id.object_id;
    qsort(out, total, sizeof *out, compare_ids);
    for (size_t i = 0; i < total; i++) {
        if (unique == 0 || out[unique - 1] != out[i])
            out[unique++] = out[i];
    }
    *ids = out;
    *count = unique;
}

enum kv_err core_on_refs(struct core *core, const struct request *request)
{
    struct kv_list hashes;
    if (kv_get_refs(request->body, &hashes) != KV_OK)
        return KV_INVALID;
    struct kv_buf counts = {0};
    uint64_t position_max = 0;
    size_t count = hashes.count;
    struct kv_hash hash;
    while (kv_next_hash(&hashes, &hash)) {
        struct kv_object object = {0};
        uint64_t position;
        bool found = ledger_get_object(&core->ledger, &hash, &object, &position) == KV_OK;
        kv_pack_uint(&counts, found ? ledger_refs(&core->ledger, &hash, object.refs) : 0);
        position_max = position > position_max ? position : position_max;
    }
    struct kv_buf *buf = core_answer(core, request, KV_MSG_COUNTS, position_max);
    kv_put_counts_begin(buf, KV_OK, count);
    kv_buf_append(buf, kv_buf_peek(&counts));
    core_answered(core);
    kv_buf_free(&counts);
    return KV_OK;
}

/* ---- listing -------------------------------------------------------------------------------------------------- */

static bool is_listed(const struct kv_msg_list *list, struct kv_slice key)
{
    return kv_slice_starts_with(key, list->prefix) && kv_slice_compare(key, list->after) >= 0;
}

/* The first intent that was there when the request came and may change what it shows. */
static struct intent *find_undecided(struct core *core, const struct kv_msg_list *list, uint64_t sequence_max)
{
    for (struct intent *intent = core->intents.open; intent != NULL; intent = intent->hh.next) {
        if (intent->sequence > sequence_max)
            return NULL;
        for (const struct kv_op *op = intent->ops.at; op < intent->ops.at + intent->ops.count; op++) {
            if ((op->kind == KV_OP_SET || op->kind == KV_OP_CLEAR) && is_listed(list, op->key))
                return intent;
        }
    }
    return NULL;
}

enum kv_err core_on_list(struct core *core, const struct request *request)
{
    struct kv_msg_list list;
    if (kv_get_list(request->body, &list) != KV_OK)
        return KV_INVALID;
    struct intent *undecided = find_undecided(core, &list, request->sequence_max);
    if (undecided != NULL) {
        park(core, undecided, request);
        return KV_OK;
    }
    struct kv_buf entries = {0}, resume = {0};
    struct kv_msg_page page = {.keys = (uint64_t)((int64_t)core->ledger.keys + core->ledger.keys_pending)};
    uint64_t position = list_page(&core->ledger, &list, &entries, &page.entries.count, &page.more, &resume);
    page.resume = kv_buf_peek(&resume);
    struct kv_buf *buf = core_answer(core, request, KV_MSG_PAGE, position);
    kv_put_page_begin(buf, &page);
    kv_buf_append(buf, kv_buf_peek(&entries));
    core_answered(core);
    kv_buf_free(&resume);
    kv_buf_free(&entries);
    return KV_OK;
}

/* ---- sessions and starts -------------------------------------------------------------------------------------- */

void core_close_reads(struct core *core, uint64_t session)
{
    struct hold *hold, *after_hold;
    HASH_ITER(hh, core->holds, hold, after_hold) {
        if (hold->id.session != session)
            continue;
        HASH_DEL(core->holds, hold);
        free(hold);
    }
    core_close_stages(core, session);
}

void core_clear_reads(struct core *core)
{
    struct hold *hold, *after_hold;
    HASH_ITER(hh, core->holds, hold, after_hold) {
        HASH_DEL(core->holds, hold);
        free(hold);
    }
    core_clear_stages(core);
}
