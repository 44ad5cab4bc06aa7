/* Goal: row and reference count of a read are of one moment, though two shards are asked; a key that is written without end is
 * read all the same.
 * Method: backend_read.c on a backend that is nothing but its calls and marks; the test plays the shards (txn_rig.h) and the writer. */
#include "txn_rig.h"

#include "backend_internal.h"
#include "marks.h"

#define KEY_SHARD 0u
#define CONTENT_SHARD 1u
#define OBJECT_ID 77u

static struct {
    struct txn_rig rig;
    struct backend backend;
    unsigned values;
    enum kv_err err;
    uint64_t txn_id, refs;
} seen;

static void on_value(void *arg, enum kv_err err, const struct backend_value *value)
{
    (void)arg;
    seen.values++;
    seen.err = err;
    seen.txn_id = value->row.txn_id;
    seen.refs = value->object.refs;
}

static void setup(void)
{
    memset(&seen, 0, sizeof seen);
    txn_rig_open(&seen.rig);
    seen.backend.calls = seen.rig.calls;
    seen.backend.shard_count = RIG_SHARDS;
    seen.backend.wait_ms = 1000000;
    seen.backend.marks = marks_new(64, 7);
    backend_read(&seen.backend, kv_slice_text(txn_rig_key(KEY_SHARD)), 64, on_value, NULL);
}

static void tear_down(void)
{
    cr_expect_eq(seen.backend.count, 0u);
    txn_rig_close(&seen.rig);
    marks_free(&seen.backend.marks);
}

TestSuite(backend_read, .init = setup, .fini = tear_down);

static uint32_t slot(void)
{
    return marks_slot(seen.backend.marks, marks_hash(seen.backend.marks, kv_slice_text(txn_rig_key(KEY_SHARD))));
}

static void answer_row(uint64_t txn_id)
{
    uint64_t request_id = 0;
    struct kv_buf body = {0};
    struct kv_msg_row row = {.has_row = true, .row = {.size = 3, .txn_id = txn_id}};
    cr_assert_eq(txn_rig_take(&seen.rig, KEY_SHARD, &request_id), KV_MSG_READ);
    while (kv_shard_of(kv_hash_slice(&row.row.hash), RIG_SHARDS) != CONTENT_SHARD)
        row.row.hash.bytes[0]++;
    kv_put_row(&body, &row);
    txn_rig_answer(&seen.rig, KEY_SHARD, KV_MSG_ROW, request_id, &body);
    kv_buf_free(&body);
}

static void answer_object(uint64_t refs, bool held)
{
    uint64_t request_id = 0;
    struct kv_buf body = {0};
    struct kv_object object = {.size = 3,
                               .stored_bytes = 3,
                               .object_id = OBJECT_ID,
                               .refs = refs,
                               .held = held,
                               .bytes = kv_slice_text("abc")};
    cr_assert_eq(txn_rig_take(&seen.rig, CONTENT_SHARD, &request_id), KV_MSG_OPEN);
    kv_put_object(&body, &(struct kv_msg_object){.object = object});
    txn_rig_answer(&seen.rig, CONTENT_SHARD, KV_MSG_OBJECT, request_id, &body);
    kv_buf_free(&body);
}

static void expect(uint64_t txn_id, uint64_t refs)
{
    cr_expect(seen.values == 1 && seen.err == KV_OK);
    cr_expect_eq(seen.txn_id, txn_id);
    cr_expect_eq(seen.refs, refs);
}

Test(backend_read, an_unwritten_key_takes_two_steps)
{
    answer_row(1);
    answer_object(2, false);
    expect(1, 2);
}

Test(backend_read, a_write_between_the_steps_is_noticed)
{
    uint64_t begun = marks_begin(seen.backend.marks, slot());
    answer_row(1);
    marks_end(seen.backend.marks, slot(), begun);
    answer_object(1, true);
    cr_assert_eq(seen.values, 0);
    uint64_t request_id = 0;
    cr_expect_eq(txn_rig_take(&seen.rig, CONTENT_SHARD, &request_id), KV_MSG_CLOSE, "what is asked for anew is let go");
    answer_row(2);
    answer_object(5, false);
    expect(2, 5);
}

Test(backend_read, a_write_under_way_is_noticed)
{
    answer_row(1);
    uint64_t begun = marks_begin(seen.backend.marks, slot());
    answer_object(1, false);
    cr_assert_eq(seen.values, 0);
    answer_row(1);
    marks_end(seen.backend.marks, slot(), begun);
    answer_object(1, false);
    cr_assert_eq(seen.values, 0, "it may have ended between the two");
    answer_row(3);
    answer_object(1, false);
    expect(3, 1);
}

Test(backend_read, a_key_that_is_written_without_end_is_read)
{
    marks_begin(seen.backend.marks, slot());
    for (uint64_t i = 1; seen.values == 0; i++) {
        cr_assert_lt(i, 10);
        answer_row(i);
        answer_object(i, false);
    }
    expect(4, 4);
}
