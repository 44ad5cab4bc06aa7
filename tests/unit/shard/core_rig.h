/* One core with a world of memory: records and answers are written down, applied rows are an overlay. Shared by test_core.c and
 * test_list.c. */
#ifndef KV_TEST_CORE_RIG_H
#define KV_TEST_CORE_RIG_H

#include <criterion/criterion.h>

#include <stdlib.h>

#include "core.h"
#include "rows.h"
#include "wire/messages.h"

#define RIG_RECORDS_MAX 2048

struct core_rig {
    struct core *core;
    struct overlay *applied;
    struct store_meta meta;
    struct kv_buf intents;
    struct {
        uint32_t type;
        struct kv_buf body;
    } records[RIG_RECORDS_MAX];
    uint64_t count;
    /* the last answer */
    unsigned answers;
    enum kv_msg type;
    uint64_t request_id, position;
    struct kv_buf answer;
    bool full;
    uint64_t unstaged; /* the last id given up */
    uint64_t requests;
    uint64_t overlay_bytes_max;
};

static inline struct kv_buf *rig_answer_begin(void *ctx, uint64_t session, enum kv_msg type, uint64_t request_id,
                                              uint64_t position)
{
    struct core_rig *rig = ctx;
    (void)session;
    rig->answers++;
    rig->type = type;
    rig->request_id = request_id;
    rig->position = position;
    rig->answer.bytes = 0;
    return &rig->answer;
}

static inline void rig_answer_end(void *ctx)
{
    (void)ctx;
}

static inline uint64_t rig_append(void *ctx, enum core_record type, struct kv_slice body, bool lazy)
{
    struct core_rig *rig = ctx;
    (void)lazy;
    cr_assert_lt(rig->count, RIG_RECORDS_MAX);
    rig->records[rig->count].type = type;
    kv_buf_append(&rig->records[rig->count].body, body);
    return ++rig->count;
}

static inline bool rig_room(void *ctx, uint64_t bytes, bool frees)
{
    (void)bytes;
    return frees || !((struct core_rig *)ctx)->full;
}

static inline void rig_stage(void *ctx, uint64_t session, uint64_t request_id, const struct store_piece *piece)
{
    struct core_rig *rig = ctx;
    uint8_t space[8];
    (void)session;
    (void)request_id;
    overlay_put(rig->applied, OVERLAY_BLOBS, row_encode_id(piece->object_id, space), piece->bytes, 0);
}

/* Sessions with odd numbers have an arena. */
static inline uint8_t *rig_slot(void *ctx, uint64_t session, uint64_t first)
{
    static uint8_t arena[KV_ARENA_BYTES];
    (void)ctx;
    return session % 2 == 1 ? arena + first * KV_ARENA_UNIT_BYTES : NULL;
}

static inline void rig_unstage(void *ctx, uint64_t object_id)
{
    ((struct core_rig *)ctx)->unstaged = object_id;
}

static inline void rig_failed(void *ctx, enum kv_err err, const char *what)
{
    (void)ctx;
    cr_assert_fail("%s: %s", what, kv_err_text(err));
}

static inline enum kv_err rig_find(struct core_rig *rig, enum overlay_table table, struct kv_slice key,
                                   struct kv_slice *row)
{
    const struct overlay_row *found = overlay_get(rig->applied, table, key);
    if (found != NULL)
        *row = overlay_value(found);
    return found != NULL ? KV_OK : KV_NOT_FOUND;
}

static inline enum kv_err rig_get_key(void *ctx, struct kv_slice key, struct kv_slice *row)
{
    return rig_find(ctx, OVERLAY_KEYS, key, row);
}

static inline enum kv_err rig_get_object(void *ctx, const struct kv_hash *hash, struct kv_slice *row)
{
    return rig_find(ctx, OVERLAY_OBJECTS, kv_hash_slice(hash), row);
}

static inline enum kv_err rig_get_blob(void *ctx, uint64_t object_id, uint64_t offset, uint64_t bytes,
                                       struct kv_buf *out)
{
    uint8_t space[8];
    struct kv_slice row;
    if (rig_find(ctx, OVERLAY_BLOBS, row_encode_id(object_id, space), &row) != KV_OK || offset + bytes > row.bytes)
        return KV_CORRUPT;
    kv_buf_append(out, kv_slice(row.data + offset, (size_t)bytes));
    return KV_OK;
}

static inline enum kv_err rig_give_key(const struct overlay_row *found, struct kv_buf *key, struct kv_slice *row)
{
    if (found == NULL)
        return KV_NOT_FOUND;
    key->bytes = 0;
    kv_buf_append(key, overlay_key(found));
    *row = overlay_value(found);
    return KV_OK;
}

static inline enum kv_err rig_seek_key(void *ctx, struct kv_slice from, struct kv_buf *key, struct kv_slice *row)
{
    struct core_rig *rig = ctx;
    overlay_order(rig->applied, SIZE_MAX);
    return rig_give_key(overlay_seek(rig->applied, from), key, row);
}

static inline enum kv_err rig_next_key(void *ctx, struct kv_buf *key, struct kv_slice *row)
{
    struct core_rig *rig = ctx;
    const struct overlay_row *at = overlay_get(rig->applied, OVERLAY_KEYS, kv_buf_peek(key));
    return rig_give_key(overlay_next(at), key, row);
}

/* A core on what is applied; then the records behind it, up to `last`. */
static inline void rig_start(struct core_rig *rig, uint64_t last)
{
    struct core_world world = {.ctx = rig,
                               .answer_begin = rig_answer_begin,
                               .answer_end = rig_answer_end,
                               .append = rig_append,
                               .room = rig_room,
                               .stage = rig_stage,
                               .unstage = rig_unstage,
                               .failed = rig_failed,
                               .slot = rig_slot,
                               .get_key = rig_get_key,
                               .get_object = rig_get_object,
                               .get_blob = rig_get_blob,
                               .seek_key = rig_seek_key,
                               .next_key = rig_next_key};
    struct core_options options = {.shard_count = 1, .overlay_bytes_max = rig->overlay_bytes_max};
    rig->core = core_new(&options, &world, &rig->meta);
    for (uint64_t i = rig->meta.position; i < last; i++)
        cr_assert_eq(core_replay(rig->core, i + 1, rig->records[i].type, kv_buf_peek(&rig->records[i].body)), KV_OK);
    core_start(rig->core, NULL, 0);
}

static inline struct core_rig *core_rig_new(void)
{
    struct core_rig *rig = kv_alloc_zero(1, sizeof *rig);
    rig->applied = overlay_new();
    rig->meta.object_id_next = 1;
    rig->overlay_bytes_max = 1 << 20;
    rig_start(rig, 0);
    return rig;
}

static inline void core_rig_free(struct core_rig *rig)
{
    core_free(&rig->core);
    overlay_free(&rig->applied);
    kv_buf_free(&rig->intents);
    kv_buf_free(&rig->answer);
    for (uint64_t i = 0; i < rig->count; i++)
        kv_buf_free(&rig->records[i].body);
    free(rig);
}

/* Forgets all but the first `left` records and what is applied, and starts again. */
static inline void rig_crash(struct core_rig *rig, uint64_t left)
{
    core_free(&rig->core);
    while (rig->count > left)
        kv_buf_free(&rig->records[--rig->count].body);
    rig_start(rig, left);
}

static inline struct core_generation *rig_freeze(struct core_rig *rig)
{
    return core_freeze(rig->core);
}

static inline void rig_apply(struct core_rig *rig, struct core_generation *generation)
{
    for (int table = 0; table < OVERLAY_TABLES; table++) {
        size_t count;
        const struct overlay_row **rows = overlay_sorted(generation->rows, (enum overlay_table)table, &count);
        for (size_t i = 0; i < count; i++) {
            if (rows[i]->tombstone)
                overlay_forget(rig->applied, (enum overlay_table)table, overlay_key(rows[i]));
            else
                overlay_put(rig->applied, (enum overlay_table)table, overlay_key(rows[i]), overlay_value(rows[i]), 0);
        }
        free(rows);
    }
    rig->meta = generation->meta;
    rig->intents.bytes = 0;
    kv_buf_append(&rig->intents, generation->meta.intents);
    rig->meta.intents = kv_buf_peek(&rig->intents);
    core_applied(rig->core, &generation);
}

static inline enum kv_err rig_say(struct core_rig *rig, uint64_t session, enum kv_msg type, struct kv_buf *body)
{
    enum kv_err err = core_message(rig->core, session, type, ++rig->requests, kv_buf_peek(body));
    kv_buf_free(body);
    return err;
}

static inline enum kv_err rig_say_id(struct core_rig *rig, enum kv_msg type, uint64_t id)
{
    struct kv_buf body = {0};
    kv_put_id(&body, id);
    return rig_say(rig, 1, type, &body);
}

/* The error in the last answer, which is a VOTE or DONE. */
static inline enum kv_err rig_err(const struct core_rig *rig)
{
    enum kv_err err = KV_ERR_COUNT;
    struct kv_list existed;
    if (rig->type == KV_MSG_VOTE)
        cr_assert_eq(kv_get_vote(kv_buf_peek(&rig->answer), &err, &existed), KV_OK);
    else
        cr_assert_eq(kv_get_done(kv_buf_peek(&rig->answer), &err), KV_OK);
    return err;
}

/* Contents are named by a letter: so is their hash, and they are 10 of that letter. */
static inline struct kv_hash rig_hash(char content)
{
    struct kv_hash hash;
    memset(hash.bytes, content, sizeof hash.bytes);
    return hash;
}

static inline struct kv_op rig_set(const char *key, uint64_t expect_txn, char content)
{
    return (struct kv_op){.kind = KV_OP_SET,
                          .key = kv_slice_text(key),
                          .expect_txn = expect_txn,
                          .row = {.hash = rig_hash(content), .size = 10, .created_s = 1}};
}

static inline struct kv_op rig_clear(const char *key, uint64_t expect_txn)
{
    return (struct kv_op){.kind = KV_OP_CLEAR, .key = kv_slice_text(key), .expect_txn = expect_txn};
}

static inline struct kv_op rig_add(char content)
{
    static char bytes[256][10];
    memset(bytes[(uint8_t)content], content, 10);
    return (struct kv_op){.kind = KV_OP_ADD,
                          .hash = rig_hash(content),
                          .count = 1,
                          .size = 10,
                          .stored_bytes = 10,
                          .has_bytes = true,
                          .bytes = kv_slice(bytes[(uint8_t)content], 10)};
}

/* The same content, too large for its row. */
#define RIG_LARGER_BYTES 1000u
static inline struct kv_op rig_add_larger(char content)
{
    static char bytes[256][RIG_LARGER_BYTES];
    struct kv_op op = rig_add(content);
    memset(bytes[(uint8_t)content], content, RIG_LARGER_BYTES);
    op.size = op.stored_bytes = RIG_LARGER_BYTES;
    op.bytes = kv_slice(bytes[(uint8_t)content], RIG_LARGER_BYTES);
    return op;
}

static inline struct kv_op rig_drop(char content)
{
    return (struct kv_op){.kind = KV_OP_DROP, .hash = rig_hash(content), .count = 1};
}

static inline enum kv_err rig_propose(struct core_rig *rig, enum kv_msg type, uint64_t txn_id, const struct kv_op *ops,
                                      size_t count)
{
    struct kv_buf body = {0};
    kv_put_prepare_begin(&body, txn_id, 1, count);
    for (size_t i = 0; i < count; i++)
        kv_put_op(&body, &ops[i]);
    rig->type = KV_MSG_HELLO; /* no answer yet */
    cr_assert_eq(rig_say(rig, 1, type, &body), KV_OK);
    return rig->type == KV_MSG_VOTE ? rig_err(rig) : KV_ERR_COUNT;
}
#define RIG_PROPOSE(rig, type, txn_id, ...)                                                                            \
    rig_propose(rig, KV_MSG_##type, txn_id, (const struct kv_op[]){__VA_ARGS__},                                       \
                sizeof((const struct kv_op[]){__VA_ARGS__}) / sizeof(struct kv_op))

/* How many bytes of its letter a READ of the key shows with the content. */
static inline size_t rig_read_bytes(struct core_rig *rig, const char *key, char content)
{
    struct kv_buf body = {0};
    struct kv_msg_row row;
    kv_put_read(&body, &(struct kv_msg_read){kv_slice_text(key), RIG_LARGER_BYTES});
    cr_assert_eq(rig_say(rig, 2, KV_MSG_READ, &body), KV_OK);
    cr_assert_eq(kv_get_row(kv_buf_peek(&rig->answer), &row), KV_OK);
    cr_assert(row.has_object);
    for (size_t i = 0; i < row.object.bytes.bytes; i++)
        cr_assert_eq(row.object.bytes.data[i], content);
    return row.object.bytes.bytes;
}

/* The version of the row that a READ shows: 0 when there is none, UINT64_MAX when the READ waits. */
static inline uint64_t rig_read(struct core_rig *rig, const char *key, uint64_t *refs)
{
    struct kv_buf body = {0};
    struct kv_msg_row row;
    unsigned answers = rig->answers;
    kv_put_read(&body, &(struct kv_msg_read){kv_slice_text(key), 100});
    cr_assert_eq(rig_say(rig, 2, KV_MSG_READ, &body), KV_OK);
    if (rig->answers == answers)
        return UINT64_MAX;
    cr_assert_eq(kv_get_row(kv_buf_peek(&rig->answer), &row), KV_OK);
    if (refs != NULL)
        *refs = row.has_object ? row.object.refs : 0;
    return row.has_row ? row.row.txn_id : 0;
}

static inline struct core_stats rig_stats(const struct core_rig *rig)
{
    struct core_stats stats;
    core_stats(rig->core, &stats);
    return stats;
}

#endif
