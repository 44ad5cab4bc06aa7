/* Shards played by hand: requests are taken off the output of real calls, answers are written with the real encoders. Shared by
 * test_txn.c and test_recovery.c. */
#ifndef KV_TEST_TXN_RIG_H
#define KV_TEST_TXN_RIG_H

#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>

#include "calls.h"
#include "kv/placement.h"
#include "wire/messages.h"

#define RIG_SHARDS 3u

struct txn_rig {
    struct calls *calls;
    struct kv_buf taken; /* the body of the last request */
};

static inline void txn_rig_wake(void *ctx, unsigned shard_index)
{
    (void)ctx;
    (void)shard_index;
}

static inline void txn_rig_open(struct txn_rig *rig)
{
    *rig = (struct txn_rig){.calls = calls_new(RIG_SHARDS, &(struct calls_world){.ctx = rig, .wake = txn_rig_wake})};
    for (unsigned i = 0; i < RIG_SHARDS; i++)
        calls_link_up(rig->calls, i);
}

static inline void txn_rig_close(struct txn_rig *rig)
{
    calls_free(&rig->calls);
    kv_buf_free(&rig->taken);
}

/* The next request to this shard and its id; 0 when there is none. The body is in rig->taken. */
static inline enum kv_msg txn_rig_take(struct txn_rig *rig, unsigned shard_index, uint64_t *request_id)
{
    struct kv_buf *output = calls_output(rig->calls, shard_index);
    struct kv_frame frame;
    size_t used;
    *request_id = 0;
    if (kv_frame_peek(kv_buf_peek(output), KV_ROLE_ROUTER, &frame, &used) != KV_OK)
        return (enum kv_msg)0;
    *request_id = frame.request_id;
    rig->taken.bytes = 0;
    kv_buf_append(&rig->taken, frame.body);
    enum kv_msg type = frame.type;
    kv_buf_consume(output, used);
    return type;
}

static inline void txn_rig_answer(struct txn_rig *rig, unsigned shard_index, enum kv_msg type, uint64_t request_id,
                                  const struct kv_buf *body)
{
    struct kv_buf frame = {0};
    size_t used, begin = kv_frame_begin(&frame, type, request_id);
    kv_buf_append(&frame, kv_buf_peek(body));
    kv_frame_end(&frame, begin);
    cr_assert_eq(calls_input(rig->calls, shard_index, kv_buf_peek(&frame), &used), KV_OK);
    kv_buf_free(&frame);
}

static inline void txn_rig_done(struct txn_rig *rig, unsigned shard_index, uint64_t request_id, enum kv_err err)
{
    struct kv_buf body = {0};
    kv_put_done(&body, err);
    txn_rig_answer(rig, shard_index, KV_MSG_DONE, request_id, &body);
    kv_buf_free(&body);
}

static inline void txn_rig_vote(struct txn_rig *rig, unsigned shard_index, uint64_t request_id, enum kv_err err)
{
    struct kv_buf body = {0};
    kv_put_vote_begin(&body, err, 0);
    txn_rig_answer(rig, shard_index, KV_MSG_VOTE, request_id, &body);
    kv_buf_free(&body);
}

/* Takes a request of this type, which must be the next one, and says DONE to it. */
static inline void txn_rig_expect_done(struct txn_rig *rig, unsigned shard_index, enum kv_msg type)
{
    uint64_t request_id = 0; /* gcc -O2 cannot see that an assertion that fails does not return */
    cr_assert_eq(txn_rig_take(rig, shard_index, &request_id), type, "shard %u", shard_index);
    txn_rig_done(rig, shard_index, request_id, KV_OK);
}

/* The first of "k0", "k1" … that lives on this shard. */
static inline const char *txn_rig_key(unsigned shard_index)
{
    static char keys[RIG_SHARDS][8];
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(keys[shard_index], sizeof keys[shard_index], "k%u", i);
        if (kv_shard_of(kv_slice_text(keys[shard_index]), RIG_SHARDS) == shard_index)
            return keys[shard_index];
    }
    cr_assert_fail("no key for shard %u", shard_index);
    return NULL;
}

#endif
