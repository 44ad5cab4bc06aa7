/* A backend that is nothing but its calls; the test plays the shards (txn_rig.h). Shared by test_backend_link.c, test_backend_pieces.c and
 * test_backend_slots.c. */
#ifndef KV_TEST_BACKEND_RIG_H
#define KV_TEST_BACKEND_RIG_H

#include "txn_rig.h"

#include <sys/mman.h>

#include "backend_internal.h"
#include "kv/clock.h"

#define OBJECT_ID 77u

struct seen {
    struct txn_rig rig;
    struct backend backend;
    unsigned values, pieces;
    enum kv_err err;
    struct backend_hold hold;
    struct kv_buf bytes; /* of the last piece */
    bool lends;          /* keeps the slots of what comes */
    struct arena_slot lent[KV_ARENA_UNITS];
    unsigned lent_count;
};

static inline void on_value(void *arg, enum kv_err err, const struct backend_value *value)
{
    struct seen *seen = arg;
    seen->values++;
    seen->err = err;
    if (err == KV_OK)
        seen->hold = value->hold;
}

static inline void on_piece(void *arg, enum kv_err err, struct kv_slice bytes, struct arena_slot *slot)
{
    struct seen *seen = arg;
    seen->pieces++;
    seen->err = err;
    seen->bytes.bytes = 0;
    kv_buf_append(&seen->bytes, bytes);
    if (seen->lends && arena_lend(slot, &seen->lent[seen->lent_count]))
        seen->lent_count++;
}

static inline struct seen *begin(void)
{
    struct seen *seen = kv_alloc_zero(1, sizeof *seen);
    txn_rig_open(&seen->rig);
    seen->backend.calls = seen->rig.calls;
    seen->backend.shard_count = RIG_SHARDS;
    seen->backend.wait_ms = 1000000;
    return seen;
}

static inline void end(struct seen *seen)
{
    cr_expect_eq(seen->backend.count, 0u);
    while (seen->lent_count > 0)
        arena_give_back(&seen->lent[--seen->lent_count]);
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        arena_free(&seen->backend.arena_rooms[i].arena);
    kv_buf_free(&seen->bytes);
    txn_rig_close(&seen->rig);
    free(seen);
}

static inline struct kv_hash hash_of(unsigned shard_index)
{
    struct kv_hash hash = {{0}};
    while (kv_shard_of(kv_hash_slice(&hash), RIG_SHARDS) != shard_index)
        hash.bytes[0]++;
    return hash;
}

static inline struct kv_object large_object(void)
{
    static const uint8_t bytes[64];
    return (struct kv_object){.size = 1 << 20,
                              .stored_bytes = 1 << 20,
                              .object_id = OBJECT_ID,
                              .refs = 1,
                              .held = true,
                              .bytes = kv_slice(bytes, sizeof bytes)};
}

static inline void relink(struct seen *seen, unsigned shard_index)
{
    calls_link_down(seen->rig.calls, shard_index);
    calls_link_up(seen->rig.calls, shard_index);
}

static inline void answer_open(struct seen *seen, uint64_t request_id)
{
    struct kv_buf body = {0};
    kv_put_object(&body, &(struct kv_msg_object){.object = large_object()});
    txn_rig_answer(&seen->rig, 0, KV_MSG_OBJECT, request_id, &body);
    kv_buf_free(&body);
}

/* Shard 0 has the key and the content. */
static inline void read_held(struct seen *seen)
{
    uint64_t request_id = 0;
    struct kv_buf body = {0};
    backend_read(&seen->backend, kv_slice_text(txn_rig_key(0)), 64, on_value, seen);
    cr_assert_eq(txn_rig_take(&seen->rig, 0, &request_id), KV_MSG_READ);
    struct kv_msg_row row = {.has_row = true, .has_object = true, .object = large_object()};
    row.object.held = false;
    row.object.bytes = kv_slice(NULL, 0);
    row.row = (struct kv_row){.hash = hash_of(0), .size = 1 << 20, .txn_id = 1};
    kv_put_row(&body, &row);
    txn_rig_answer(&seen->rig, 0, KV_MSG_ROW, request_id, &body);
    kv_buf_free(&body);
    cr_assert_eq(txn_rig_take(&seen->rig, 0, &request_id), KV_MSG_OPEN);
    answer_open(seen, request_id);
    cr_assert(seen->values == 1 && seen->err == KV_OK);
}

/* The next FETCH; the ARENA before a link's first one is passed over. */
static inline struct kv_msg_fetch take_fetch(struct seen *seen, uint64_t *request_id)
{
    struct kv_msg_fetch fetch;
    enum kv_msg type = txn_rig_take(&seen->rig, 0, request_id);
    if (type == KV_MSG_ARENA)
        type = txn_rig_take(&seen->rig, 0, request_id);
    cr_assert_eq(type, KV_MSG_FETCH);
    cr_assert_eq(kv_get_fetch(kv_buf_peek(&seen->rig.taken), &fetch), KV_OK);
    return fetch;
}

/* What came with the ARENA that is in front of the output, as a shard maps it. */
static inline uint8_t *take_arena(struct seen *seen)
{
    int fd;
    uint64_t request_id;
    calls_next_output(seen->rig.calls, 0, &fd);
    cr_assert_geq(fd, 0);
    uint8_t *map = mmap(NULL, KV_ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(map, MAP_FAILED);
    cr_assert_eq(txn_rig_take(&seen->rig, 0, &request_id), KV_MSG_ARENA);
    cr_assert_eq(kv_get_empty(kv_buf_peek(&seen->rig.taken)), KV_OK);
    return map;
}

static inline void answer_fetch(struct seen *seen, uint64_t request_id, struct kv_msg_piece piece)
{
    struct kv_buf body = {0};
    kv_put_piece(&body, &piece);
    txn_rig_answer(&seen->rig, 0, KV_MSG_PIECE, request_id, &body);
    kv_buf_free(&body);
}

static inline void answer_piece(struct seen *seen, enum kv_err err)
{
    uint64_t request_id;
    take_fetch(seen, &request_id);
    answer_fetch(seen, request_id,
                 (struct kv_msg_piece){.err = err, .bytes = kv_slice_text(err == KV_OK ? "piece" : "")});
}

static inline enum kv_msg next_message(struct seen *seen)
{
    uint64_t request_id;
    return txn_rig_take(&seen->rig, 0, &request_id);
}

#endif
