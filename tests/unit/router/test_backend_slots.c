/* Goal: contents that do not come with their row come in a slot, of which nothing is lost or read after its time: whether somebody takes
 * it, the reader leaves, the link breaks or the shard says what is not so; and without a slot they come all the same.
 * Method: backend_read.c on a backend that is nothing but its calls; the test plays the shard (backend_rig.h). */
#include "backend_rig.h"

#include <sys/mman.h>

#define SIZE 60000u
#define STORED (SIZE + 12u) /* raw, with its index */

struct reading {
    struct seen *seen;
    struct backend_call *call;
    struct kv_buf bytes; /* of the value */
    struct arena_slot lent;
    bool lends;
};

static void on_content(void *arg, enum kv_err err, const struct backend_value *value)
{
    struct reading *reading = arg;
    reading->seen->values++;
    reading->seen->err = err;
    if (err != KV_OK)
        return;
    reading->bytes.bytes = 0;
    kv_buf_append(&reading->bytes, value->object.bytes);
    if (reading->lends)
        arena_lend(value->slot, &reading->lent);
}

static void answer_row(struct seen *seen, uint64_t size, uint64_t stored_bytes)
{
    uint64_t request_id = 0;
    struct kv_msg_read asked;
    struct kv_buf body = {0};
    cr_assert_eq(txn_rig_take(&seen->rig, 0, &request_id), KV_MSG_READ);
    cr_assert_eq(kv_get_read(kv_buf_peek(&seen->rig.taken), &asked), KV_OK);
    struct kv_msg_row row = {.has_row = true, .has_object = true};
    row.row = (struct kv_row){.hash = hash_of(0), .size = size, .txn_id = 1};
    row.object = (struct kv_object){.size = size, .stored_bytes = stored_bytes, .object_id = OBJECT_ID, .refs = 1};
    cr_assert_gt(stored_bytes, asked.bytes_max, "else it would come along");
    kv_put_row(&body, &row);
    txn_rig_answer(&seen->rig, 0, KV_MSG_ROW, request_id, &body);
    kv_buf_free(&body);
}

static struct kv_msg_open take_open(struct seen *seen, uint64_t *request_id)
{
    struct kv_msg_open open;
    cr_assert_eq(txn_rig_take(&seen->rig, 0, request_id), KV_MSG_OPEN);
    cr_assert_eq(kv_get_open(kv_buf_peek(&seen->rig.taken), &open), KV_OK);
    return open;
}

static void answer_object(struct seen *seen, uint64_t request_id, uint64_t slot_bytes, struct kv_slice bytes)
{
    struct kv_buf body = {0};
    struct kv_object object = {.size = SIZE, .stored_bytes = STORED, .object_id = OBJECT_ID, .refs = 1, .bytes = bytes};
    kv_put_object(&body, &(struct kv_msg_object){.object = object, .slot_bytes = slot_bytes});
    txn_rig_answer(&seen->rig, 0, KV_MSG_OBJECT, request_id, &body);
    kv_buf_free(&body);
}

/* A reader whose OPEN is on its way. */
static void read_until_open(struct reading *reading)
{
    reading->call =
        backend_read(&reading->seen->backend, kv_slice_text(txn_rig_key(0)), KV_SLOT_BYTES_MAX, on_content, reading);
    answer_row(reading->seen, SIZE, STORED);
}

static void expect_all_idle(struct seen *seen)
{
    struct arena_slot slots[KV_ARENA_UNITS];
    struct arena *arena = seen->backend.arena_rooms[0].arena;
    for (unsigned i = 0; i < KV_ARENA_UNITS; i++)
        cr_assert(arena_take(arena, 1, &slots[i]), "a slot is lost");
    for (unsigned i = 0; i < KV_ARENA_UNITS; i++)
        arena_give_back(&slots[i]);
}

static void end_reading(struct reading *reading)
{
    arena_give_back(&reading->lent);
    expect_all_idle(reading->seen);
    kv_buf_free(&reading->bytes);
    end(reading->seen);
}

Test(backend_slots, a_content_comes_in_a_slot_that_lasts_when_it_is_lent)
{
    struct reading first = {.seen = begin(), .lends = true}, second = {.seen = first.seen};
    uint64_t request_id = 0;
    read_until_open(&first);
    uint8_t *map = take_arena(first.seen);
    struct kv_msg_open open = take_open(first.seen, &request_id);
    cr_expect(open.slot.named && open.bytes_max == STORED);
    memset(map, 'a', STORED);
    answer_object(first.seen, request_id, STORED, kv_slice(NULL, 0));
    cr_expect(first.seen->err == KV_OK && first.bytes.bytes == STORED && first.bytes.data[STORED - 1] == 'a');
    cr_assert_not_null(first.lent.arena);

    read_until_open(&second);
    open = take_open(first.seen, &request_id);
    cr_assert_eq(open.slot.first, first.lent.count, "behind what is lent");
    memset(map + open.slot.first * KV_ARENA_UNIT_BYTES, 'b', STORED);
    answer_object(first.seen, request_id, STORED, kv_slice(NULL, 0));
    cr_expect(second.bytes.data[0] == 'b' && arena_peek(&first.lent, STORED).data[STORED - 1] == 'a');
    kv_buf_free(&second.bytes);
    munmap(map, KV_ARENA_BYTES);
    end_reading(&first);
}

/* More slow readers than there is room for: whoever comes then is served through the socket. */
Test(backend_slots, without_one_a_content_comes_in_its_message)
{
    struct reading reading = {.seen = begin()};
    struct arena_slot taken[KV_ARENA_UNITS];
    uint64_t request_id = 0;
    uint8_t bytes[STORED];
    unsigned count = 0;
    backend_renew_arena(&reading.seen->backend, 0);
    munmap(take_arena(reading.seen), KV_ARENA_BYTES);
    while (arena_take(reading.seen->backend.arena_rooms[0].arena, KV_SLOT_BYTES_MAX, &taken[count]))
        count++;
    while (arena_take(reading.seen->backend.arena_rooms[0].arena, 1, &taken[count]))
        count++;
    read_until_open(&reading);
    struct kv_msg_open open = take_open(reading.seen, &request_id);
    cr_expect(!open.slot.named && open.bytes_max == STORED);
    memset(bytes, 'c', sizeof bytes);
    answer_object(reading.seen, request_id, 0, kv_slice(bytes, STORED));
    cr_expect(reading.bytes.bytes == STORED && reading.bytes.data[0] == 'c');
    while (count > 0)
        arena_give_back(&taken[--count]);
    end_reading(&reading);
}

/* The shard had reasons of its own: the bytes came along though a slot was named. */
Test(backend_slots, that_were_not_used_are_back)
{
    struct reading reading = {.seen = begin(), .lends = true};
    uint64_t request_id = 0;
    uint8_t bytes[STORED];
    read_until_open(&reading);
    munmap(take_arena(reading.seen), KV_ARENA_BYTES);
    cr_expect(take_open(reading.seen, &request_id).slot.named);
    memset(bytes, 'd', sizeof bytes);
    answer_object(reading.seen, request_id, 0, kv_slice(bytes, STORED));
    cr_expect(reading.bytes.bytes == STORED && reading.bytes.data[0] == 'd');
    cr_expect_null(reading.lent.arena);
    end_reading(&reading);
}

/* More than there is room for would be another's bytes. */
Test(backend_slots, are_not_read_beyond_their_end)
{
    struct reading reading = {.seen = begin()};
    uint64_t request_id = 0;
    read_until_open(&reading);
    munmap(take_arena(reading.seen), KV_ARENA_BYTES);
    take_open(reading.seen, &request_id);
    answer_object(reading.seen, request_id, KV_SLOT_BYTES_MAX, kv_slice(NULL, 0));
    cr_expect_eq(reading.seen->err, KV_CORRUPT);
    end_reading(&reading);
}

/* The reader leaves while its OPEN is on its way: the slot is back when that is answered, or when the link is gone. */
Test(backend_slots, of_readers_that_left_are_back)
{
    struct reading reading = {.seen = begin(), .lends = true};
    uint64_t request_id = 0;
    read_until_open(&reading);
    munmap(take_arena(reading.seen), KV_ARENA_BYTES);
    take_open(reading.seen, &request_id);
    backend_cancel(reading.call);
    reading.call->fail(reading.call, KV_UNAVAILABLE); /* the tick finds it */
    answer_object(reading.seen, request_id, STORED, kv_slice(NULL, 0));
    cr_expect_eq(reading.seen->values, 0u);
    expect_all_idle(reading.seen);

    read_until_open(&reading);
    take_open(reading.seen, &request_id);
    calls_link_down(reading.seen->rig.calls, 0);
    backend_cancel(reading.call);
    reading.call->fail(reading.call, KV_UNAVAILABLE);
    end_reading(&reading);
}

/* What the old shard may still write is nobody's: the OPEN that is sent again names no slot of its arena. */
Test(backend_slots, of_the_last_link_are_not_named_on_the_next)
{
    struct reading reading = {.seen = begin()};
    uint64_t request_id = 0;
    uint8_t bytes[STORED];
    read_until_open(&reading);
    munmap(take_arena(reading.seen), KV_ARENA_BYTES);
    cr_expect(take_open(reading.seen, &request_id).slot.named);
    relink(reading.seen, 0);
    cr_expect_not(take_open(reading.seen, &request_id).slot.named);
    memset(bytes, 'e', sizeof bytes);
    answer_object(reading.seen, request_id, 0, kv_slice(bytes, STORED));
    cr_expect(reading.bytes.bytes == STORED && reading.bytes.data[0] == 'e');
    end_reading(&reading);
}

/* A frame of 256 KiB and its index fit; of 1 GiB the index comes first, so that each frame has a slot of its own. */
Test(backend_slots, are_as_long_as_what_the_first_frame_needs)
{
    static const uint64_t sizes[][2] = {
        {1u << 20, 4 * 12 + KV_CONTENT_FRAME_BYTES}, {1u << 30, 4096 * 12}, {(uint64_t)16 << 30, KV_SLOT_BYTES_MAX}};
    struct reading reading = {.seen = begin()};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint64_t request_id = 0;
        backend_read(&reading.seen->backend, kv_slice_text(txn_rig_key(0)), KV_SLOT_BYTES_MAX, on_content, &reading);
        answer_row(reading.seen, sizes[i][0], sizes[i][0]);
        if (i == 0)
            munmap(take_arena(reading.seen), KV_ARENA_BYTES);
        struct kv_msg_open open = take_open(reading.seen, &request_id);
        cr_expect(open.slot.named && open.bytes_max == sizes[i][1], "%lu", open.bytes_max);
        answer_object(reading.seen, request_id, open.bytes_max, kv_slice(NULL, 0));
    }
    end_reading(&reading);
}
