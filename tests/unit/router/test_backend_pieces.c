/* Goal: no piece is read from a slot that a shard may write another one into: neither while somebody has it, nor after a cancel or
 * a link that broke; and without a slot pieces come all the same.
 * Method: backend_fetch.c on a backend that is nothing but its calls; the test plays the shard, and writes into the arena that it was
 * sent. */
#include "backend_rig.h"

static struct backend_call *fetch(struct seen *seen, uint64_t bytes_max)
{
    return backend_fetch(&seen->backend, &seen->hold, 64, bytes_max, on_piece, seen);
}

static void put_into(uint8_t *arena, const struct kv_msg_fetch *asked, const char *text)
{
    cr_assert(asked->slot.named);
    memcpy(arena + asked->slot.first * KV_ARENA_UNIT_BYTES, text, strlen(text));
}

static void answer_in_slot(struct seen *seen, uint64_t request_id, size_t bytes)
{
    answer_fetch(seen, request_id, (struct kv_msg_piece){.in_slot = true, .slot_bytes = bytes});
}

static bool has(const struct seen *seen, const char *text)
{
    return kv_slice_equal(kv_buf_peek(&seen->bytes), kv_slice_text(text));
}

static void cancel(struct backend_call *call)
{
    backend_cancel(call);
    call->fail(call, KV_UNAVAILABLE); /* the tick finds it */
}

/* A piece that comes in a slot, from asking to the callback. */
static struct kv_msg_fetch fetch_in_slot(struct seen *seen, uint8_t *arena, const char *text)
{
    uint64_t request_id;
    fetch(seen, 100);
    struct kv_msg_fetch asked = take_fetch(seen, &request_id);
    put_into(arena, &asked, text);
    answer_in_slot(seen, request_id, strlen(text));
    cr_expect(has(seen, text));
    return asked;
}

/* With a first piece behind it, which came in a message: the shard had not mapped the arena. */
static struct seen *begin_with_arena(uint8_t **arena)
{
    struct seen *seen = begin();
    read_held(seen);
    fetch(seen, 100);
    *arena = take_arena(seen);
    answer_piece(seen, KV_OK);
    cr_expect(has(seen, "piece"));
    return seen;
}

/* With a FETCH for more than goes into a slot on its way. */
static struct seen *begin_with_large(uint64_t *request_id)
{
    struct seen *seen = begin();
    read_held(seen);
    fetch(seen, KV_SLOT_BYTES_MAX + 1);
    cr_expect_not(take_fetch(seen, request_id).slot.named);
    return seen;
}

Test(backend_pieces, come_in_a_slot_that_the_next_one_may_use)
{
    uint8_t *arena;
    struct seen *seen = begin_with_arena(&arena);
    struct kv_msg_fetch first = fetch_in_slot(seen, arena, "first");
    struct kv_msg_fetch second = fetch_in_slot(seen, arena, "second");
    cr_expect_eq(first.slot.first, second.slot.first, "nobody kept it");
    end(seen);
}

Test(backend_pieces, larger_than_a_slot_come_in_their_messages)
{
    uint64_t request_id;
    struct seen *seen = begin_with_large(&request_id);
    answer_fetch(seen, request_id, (struct kv_msg_piece){.bytes = kv_slice_text("large")});
    cr_expect(has(seen, "large"));
    end(seen);
}

/* A shard that says that bytes are in a slot which nobody named. */
Test(backend_pieces, in_no_slot_are_damage)
{
    uint64_t request_id;
    struct seen *seen = begin_with_large(&request_id);
    answer_in_slot(seen, request_id, 5);
    cr_expect_eq(seen->err, KV_CORRUPT);
    end(seen);
}

/* Slow clients have all slots that are lent: the others' pieces come in those that are not, and are copied. */
Test(backend_pieces, keep_their_bytes_for_as_long_as_somebody_has_the_slot)
{
    char text[16];
    uint8_t *arena;
    struct seen *seen = begin_with_arena(&arena);
    seen->lends = true;
    for (unsigned i = 0; i < 2 * KV_ARENA_UNITS; i++) {
        snprintf(text, sizeof text, "%u", i);
        fetch_in_slot(seen, arena, text);
    }
    cr_assert_eq(seen->lent_count, KV_ARENA_UNITS - ARENA_SPARE_UNITS);
    for (unsigned i = 0; i < seen->lent_count; i++) {
        snprintf(text, sizeof text, "%u", i);
        cr_expect(kv_slice_equal(arena_peek(&seen->lent[i], strlen(text)), kv_slice_text(text)));
    }
    end(seen);
}

/* The shard writes the cancelled piece into the slot after it was named anew, and then, being asked in this order, the next one. */
Test(backend_pieces, that_were_cancelled_do_not_keep_their_slots)
{
    struct seen *seen = begin();
    uint64_t slow_id, next_id;
    read_held(seen);
    struct backend_call *call = fetch(seen, 100);
    uint8_t *arena = take_arena(seen);
    struct kv_msg_fetch slow = take_fetch(seen, &slow_id);
    cancel(call);
    fetch(seen, 100);
    struct kv_msg_fetch next = take_fetch(seen, &next_id);
    cr_expect_eq(next.slot.first, slow.slot.first);
    put_into(arena, &slow, "late");
    answer_in_slot(seen, slow_id, 4);
    cr_expect_eq(seen->pieces, 0u, "nobody wants it");
    put_into(arena, &next, "next");
    answer_in_slot(seen, next_id, 4);
    cr_expect(has(seen, "next"));
    end(seen);
}

/* What the old shard may still write, it writes into memory of its own. What was lent stays as it was. */
Test(backend_pieces, of_the_next_link_come_in_another_arena)
{
    struct seen *seen = begin();
    uint64_t request_id;
    read_held(seen);
    struct backend_call *abandoned = fetch(seen, 100);
    uint8_t *old = take_arena(seen);
    struct kv_msg_fetch asked = take_fetch(seen, &request_id);
    seen->lends = true;
    struct kv_msg_fetch lent = fetch_in_slot(seen, old, "kept");
    relink(seen, 0);
    cr_expect_not(take_fetch(seen, &request_id).slot.named, "sent again, before there is an arena");
    backend_cancel(abandoned);
    answer_fetch(seen, request_id, (struct kv_msg_piece){.err = KV_STALE});
    fetch(seen, 100);
    uint8_t *arena = take_arena(seen);
    struct kv_msg_fetch next = take_fetch(seen, &request_id);
    cr_expect_eq(next.slot.first, asked.slot.first);
    put_into(arena, &next, "next");
    put_into(old, &asked, "late");
    answer_in_slot(seen, request_id, 4);
    cr_expect(has(seen, "next"));
    memset(arena, 'x', KV_ARENA_BYTES);
    cr_expect(kv_slice_equal(arena_peek(&seen->lent[0], 4), kv_slice_text("kept")), "slot %lu", lent.slot.first);
    end(seen);
}
