/* Goal: no answer leaves before its record is durable, none is lost or torn, and none waits for another's record.
 * Method: frames whose request id names their position; a seeded walk of begin, release and partial writes against the rule. */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "outbox.h"
#include "wire/frame.h"

static void add(struct outbox *outbox, uint64_t request_id, uint64_t position, size_t bytes)
{
    struct kv_buf *buf = outbox_begin(outbox, KV_MSG_DONE, request_id, position);
    memset(kv_buf_reserve(buf, bytes), (int)(request_id & 0xff), bytes);
    buf->bytes += bytes;
    outbox_end(outbox);
}

/* Takes one whole frame off what may leave; 0: there is none. */
static uint64_t take(struct outbox *outbox)
{
    struct kv_frame frame;
    size_t used;
    if (kv_frame_peek(outbox_peek(outbox), KV_ROLE_SHARD, &frame, &used) != KV_OK)
        return 0;
    uint64_t id = frame.request_id;
    outbox_consume(outbox, used);
    return id;
}

Test(outbox, leaves_at_once_without_a_record)
{
    struct outbox outbox = {0};
    add(&outbox, 1, 0, 10);
    cr_expect_eq(outbox_bytes(&outbox), KV_FRAME_HEADER_BYTES + 10);
    cr_expect_eq(take(&outbox), 1u);
    cr_expect_eq(outbox_bytes(&outbox), 0u);
    outbox_free(&outbox);
}

Test(outbox, waits_for_its_record)
{
    struct outbox outbox = {0};
    add(&outbox, 1, 5, 10);
    cr_expect_eq(outbox_peek(&outbox).bytes, 0u);
    cr_expect_gt(outbox_bytes(&outbox), 0u);
    outbox_release(&outbox, 4);
    cr_expect_eq(take(&outbox), 0u);
    outbox_release(&outbox, 5);
    cr_expect_eq(take(&outbox), 1u);
    add(&outbox, 2, 5, 10);
    cr_expect_eq(take(&outbox), 2u, "record 5 is on disk already");
    outbox_free(&outbox);
}

Test(outbox, what_waits_for_nothing_overtakes)
{
    struct outbox outbox = {0};
    add(&outbox, 1, 5, 10);
    add(&outbox, 2, 0, 10);
    add(&outbox, 3, 9, 10);
    add(&outbox, 4, 7, 10);
    cr_expect_eq(take(&outbox), 2u);
    cr_expect_eq(take(&outbox), 0u);
    outbox_release(&outbox, 8);
    cr_expect_eq(take(&outbox), 1u);
    cr_expect_eq(take(&outbox), 0u, "4 waits with 3, in front of it");
    outbox_release(&outbox, 9);
    cr_expect_eq(take(&outbox), 3u);
    cr_expect_eq(take(&outbox), 4u);
    outbox_free(&outbox);
}

Test(outbox, what_waits_stays_when_memory_is_given_back)
{
    struct outbox outbox = {0};
    add(&outbox, 1, 5, 10);
    add(&outbox, 2, 0, 10);
    outbox_trim(&outbox);
    cr_expect_eq(take(&outbox), 2u);
    outbox_trim(&outbox);
    cr_expect_null(outbox.ready.data);
    outbox_release(&outbox, 5);
    outbox_trim(&outbox);
    cr_expect_eq(take(&outbox), 1u);
    outbox_trim(&outbox);
    cr_expect(outbox.ready.data == NULL && outbox.held.data == NULL);
    add(&outbox, 3, 6, 10);
    outbox_release(&outbox, 6);
    cr_expect_eq(take(&outbox), 3u);
    outbox_free(&outbox);
}

Test(outbox, any_walk_keeps_the_rule)
{
    enum { FRAMES = 20000 };
    static uint64_t position_of[FRAMES + 1];
    static bool left[FRAMES + 1];
    struct outbox outbox = {0};
    struct kv_buf stream = {0};
    uint64_t durable = 0, appended = 0;
    unsigned made = 0, out = 0;
    unsigned short seed[3] = {7, 7, 7}; /* replay: the seed is fixed */
    while (out < FRAMES) {
        long dice = nrand48(seed) % 4;
        if (dice == 0 && made < FRAMES) {
            appended += (uint64_t)nrand48(seed) % 3;
            position_of[++made] = (uint64_t)nrand48(seed) % (appended + 1);
            add(&outbox, made, position_of[made], (size_t)nrand48(seed) % 3000);
        } else if (dice == 1) {
            durable += (uint64_t)nrand48(seed) % (appended - durable + 1);
            outbox_release(&outbox, durable);
        } else {
            struct kv_slice ready = outbox_peek(&outbox);
            size_t bytes = ready.bytes == 0 ? 0 : (size_t)nrand48(seed) % ready.bytes + 1;
            kv_buf_append(&stream, kv_slice(ready.data, bytes));
            outbox_consume(&outbox, bytes);
        }
        struct kv_frame frame;
        size_t used;
        while (kv_frame_peek(kv_buf_peek(&stream), KV_ROLE_SHARD, &frame, &used) == KV_OK) {
            cr_assert(frame.request_id >= 1 && frame.request_id <= made && !left[frame.request_id]);
            cr_assert_leq(position_of[frame.request_id], durable, "frame %u left too early",
                          (unsigned)frame.request_id);
            for (size_t i = 0; i < frame.body.bytes; i++)
                cr_assert_eq(frame.body.data[i], frame.request_id & 0xff);
            left[frame.request_id] = true;
            out++;
            kv_buf_consume(&stream, used);
        }
    }
    cr_expect_eq(outbox_bytes(&outbox), 0u);
    kv_buf_free(&stream);
    outbox_free(&outbox);
}
