/* Goal: every request is answered exactly once, in spite of links that break, callers that leave and peers that misbehave.
 * Method: calls.h with a recording world; the shard is played by hand: frames are read off the output, answers are built
 * with the same frame functions and fed to calls_input in pieces of any size. */
#include <criterion/criterion.h>

#include "calls.h"
#include "kv/limits.h"
#include "wire/frame.h"
#include "wire/messages.h"

struct seen {
    struct calls *calls;
    unsigned wakes[KV_SHARDS_MAX];
    unsigned fulls; /* what waits is taken then */
    unsigned answers;
    uint64_t last; /* number in the last answer */
    /* what on_answer does besides counting */
    struct call *cancel;
    bool ask_again;
};

static void on_wake(void *ctx, unsigned shard_index)
{
    ((struct seen *)ctx)->wakes[shard_index]++;
}

static void on_full(void *ctx, unsigned shard_index)
{
    struct seen *seen = ctx;
    struct kv_buf *output = calls_output(seen->calls, shard_index);
    cr_expect_eq(shard_index, 1);
    cr_expect_geq(output->bytes, CALLS_OUTPUT_BYTES);
    seen->fulls++;
    kv_buf_consume(output, output->bytes);
}

static struct seen *seen_new(unsigned shard_count)
{
    struct seen *seen = kv_alloc_zero(1, sizeof(*seen));
    seen->calls = calls_new(shard_count, &(struct calls_world){.ctx = seen, .wake = on_wake});
    return seen;
}

static void seen_free(struct seen *seen)
{
    calls_free(&seen->calls);
    cr_expect_null(seen->calls);
    calls_free(&seen->calls); /* NULL is accepted */
    free(seen);
}

struct asked {
    struct seen *seen;
    uint64_t number; /* travels in the request's body */
};

static void write_number(void *arg, struct kv_buf *buf)
{
    kv_put_id(buf, ((struct asked *)arg)->number);
}

static void on_done(void *arg, struct kv_slice body)
{
    struct asked *asked = arg;
    enum kv_err err;
    cr_assert_eq(kv_get_done(body, &err), KV_OK);
    asked->seen->answers++;
    asked->seen->last = asked->number;
    calls_cancel(asked->seen->calls, asked->seen->cancel);
    asked->seen->cancel = NULL;
    if (asked->seen->ask_again) {
        asked->seen->ask_again = false;
        calls_send(asked->seen->calls, 0, KV_MSG_COMMIT, false, write_number, on_done, asked);
    }
}

static struct call *ask(struct asked *asked, unsigned shard_index)
{
    return calls_send(asked->seen->calls, shard_index, KV_MSG_COMMIT, false, write_number, on_done, asked);
}

/* Takes the first request off the output and returns its number; its id goes to `id_out`. 0: nothing there. */
static uint64_t take_request(struct seen *seen, unsigned shard_index, uint64_t *id_out)
{
    struct kv_buf *output = calls_output(seen->calls, shard_index);
    struct kv_frame frame;
    size_t used = 0;
    if (kv_frame_peek(kv_buf_peek(output), KV_ROLE_ROUTER, &frame, &used) != KV_OK)
        return 0;
    uint64_t number = 0;
    cr_assert_eq(kv_get_id(frame.body, &number), KV_OK);
    if (id_out != NULL)
        *id_out = frame.request_id;
    kv_buf_consume(output, used);
    return number;
}

static void put_done(struct kv_buf *buf, uint64_t id)
{
    size_t begin = kv_frame_begin(buf, KV_MSG_DONE, id);
    kv_put_done(buf, KV_OK);
    kv_frame_end(buf, begin);
}

static enum kv_err answer(struct seen *seen, unsigned shard_index, uint64_t id)
{
    struct kv_buf buf = {0};
    size_t used = 0;
    put_done(&buf, id);
    enum kv_err err = calls_input(seen->calls, shard_index, kv_buf_peek(&buf), &used);
    cr_expect(err != KV_OK || used == buf.bytes);
    kv_buf_free(&buf);
    return err;
}

Test(calls, every_request_type_names_its_answer)
{
    cr_expect_eq(kv_msg_answer(KV_MSG_HELLO), (uint32_t)KV_MSG_HELLO);
    cr_expect_eq(kv_msg_answer(KV_MSG_READ), (uint32_t)KV_MSG_ROW);
    cr_expect_eq(kv_msg_answer(KV_MSG_APPLY), (uint32_t)KV_MSG_VOTE);
    cr_expect_eq(kv_msg_answer(KV_MSG_STATS), (uint32_t)KV_MSG_COUNTERS);
    cr_expect_eq(kv_msg_answer(KV_MSG_CLOSE), 0u);
    cr_expect_eq(kv_msg_answer(KV_MSG_ROW), 0u);
    cr_expect_eq(kv_msg_answer(4711), 0u);
}

Test(calls, requests_leave_in_order_and_answers_come_in_any)
{
    struct seen *seen = seen_new(2);
    struct asked asked[3] = {{seen, 11}, {seen, 12}, {seen, 13}};
    uint64_t ids[3];
    calls_link_up(seen->calls, 1);
    for (int i = 0; i < 3; i++)
        cr_assert_not_null(ask(&asked[i], 1));
    cr_expect_eq(seen->wakes[1], 1u, "one wake for all of a turn's requests");
    cr_expect_eq(seen->wakes[0], 0u);
    cr_expect_eq(calls_waiting(seen->calls, 1), 3u);
    for (unsigned i = 0; i < 3; i++)
        cr_expect_eq(take_request(seen, 1, &ids[i]), 11u + i);
    for (int i = 2; i >= 0; i--) {
        cr_expect_eq(answer(seen, 1, ids[i]), KV_OK);
        cr_expect_eq(seen->last, asked[i].number);
    }
    cr_expect_eq(calls_waiting(seen->calls, 1), 0u);
    seen_free(seen);
}

Test(calls, nothing_is_written_while_the_link_is_down)
{
    struct seen *seen = seen_new(1);
    struct asked asked = {seen, 7};
    cr_assert_not_null(ask(&asked, 0));
    cr_expect_eq(calls_output(seen->calls, 0)->bytes, 0u);
    cr_expect_not(calls_link_is_up(seen->calls, 0));
    calls_link_up(seen->calls, 0);
    cr_expect(calls_link_is_up(seen->calls, 0));
    cr_expect_eq(seen->wakes[0], 1u);
    cr_expect_eq(take_request(seen, 0, NULL), 7u);
    seen_free(seen);
}

Test(calls, unanswered_requests_leave_again_first_and_in_order)
{
    struct seen *seen = seen_new(1);
    struct asked asked[4] = {{seen, 1}, {seen, 2}, {seen, 3}, {seen, 4}};
    uint64_t id_first = 0, ids[3];
    calls_link_up(seen->calls, 0);
    for (int i = 0; i < 3; i++)
        ask(&asked[i], 0);
    take_request(seen, 0, &id_first);
    cr_expect_eq(answer(seen, 0, id_first), KV_OK);
    calls_link_down(seen->calls, 0);
    cr_expect_eq(calls_output(seen->calls, 0)->bytes, 0u, "what was not written is thrown away");
    ask(&asked[3], 0);
    calls_link_up(seen->calls, 0);
    for (unsigned i = 0; i < 3; i++)
        cr_expect_eq(take_request(seen, 0, &ids[i]), 2u + i);
    cr_expect_eq(take_request(seen, 0, NULL), 0u);
    for (int i = 0; i < 3; i++)
        cr_expect_eq(answer(seen, 0, ids[i]), KV_OK);
    cr_expect_eq(seen->answers, 4u);
    seen_free(seen);
}

Test(calls, a_second_answer_finds_nobody)
{
    struct seen *seen = seen_new(1);
    struct asked asked[2] = {{seen, 1}, {seen, 2}};
    uint64_t id_old = 0, id_new = 0;
    calls_link_up(seen->calls, 0);
    ask(&asked[0], 0);
    take_request(seen, 0, &id_old);
    cr_expect_eq(answer(seen, 0, id_old), KV_OK);
    ask(&asked[1], 0);
    take_request(seen, 0, &id_new);
    cr_expect_neq(id_new, id_old);
    cr_expect_eq(answer(seen, 0, id_old), KV_OK);
    cr_expect_eq(seen->answers, 1u);
    cr_expect_eq(calls_waiting(seen->calls, 0), 1u);
    seen_free(seen);
}

Test(calls, a_call_cancelled_before_it_left_never_leaves)
{
    struct seen *seen = seen_new(1);
    struct asked asked[2] = {{seen, 1}, {seen, 2}};
    struct call *first = ask(&asked[0], 0);
    ask(&asked[1], 0);
    calls_cancel(seen->calls, first);
    calls_cancel(seen->calls, NULL);
    calls_link_up(seen->calls, 0);
    cr_expect_eq(take_request(seen, 0, NULL), 2u);
    cr_expect_eq(take_request(seen, 0, NULL), 0u);
    seen_free(seen);
}

Test(calls, the_answer_to_a_cancelled_call_is_skipped_and_it_is_not_sent_again)
{
    struct seen *seen = seen_new(1);
    struct asked asked[2] = {{seen, 1}, {seen, 2}};
    uint64_t id = 0;
    calls_link_up(seen->calls, 0);
    struct call *first = ask(&asked[0], 0);
    ask(&asked[1], 0);
    take_request(seen, 0, &id);
    calls_cancel(seen->calls, first);
    cr_expect_eq(answer(seen, 0, id), KV_OK);
    cr_expect_eq(seen->answers, 0u);
    calls_link_down(seen->calls, 0);
    calls_link_up(seen->calls, 0);
    cr_expect_eq(take_request(seen, 0, NULL), 2u);
    cr_expect_eq(take_request(seen, 0, NULL), 0u);
    seen_free(seen);
}

Test(calls, an_answer_may_cancel_a_neighbour_and_ask_anew)
{
    struct seen *seen = seen_new(1);
    struct asked asked[2] = {{seen, 1}, {seen, 2}};
    struct kv_buf answers = {0};
    uint64_t ids[2];
    size_t used = 0;
    calls_link_up(seen->calls, 0);
    ask(&asked[0], 0);
    seen->cancel = ask(&asked[1], 0);
    seen->ask_again = true;
    for (int i = 0; i < 2; i++) {
        take_request(seen, 0, &ids[i]);
        put_done(&answers, ids[i]);
    }
    cr_expect_eq(calls_input(seen->calls, 0, kv_buf_peek(&answers), &used), KV_OK);
    cr_expect_eq(used, answers.bytes);
    cr_expect_eq(seen->answers, 1u, "the neighbour was cancelled between two frames of one read");
    cr_expect_eq(take_request(seen, 0, NULL), 1u, "the request made by the callback");
    kv_buf_free(&answers);
    seen_free(seen);
}

Test(calls, answers_cut_anywhere_are_put_together)
{
    struct seen *seen = seen_new(1);
    struct asked asked[2] = {{seen, 1}, {seen, 2}};
    struct kv_buf answers = {0}, stream = {0};
    calls_link_up(seen->calls, 0);
    for (int i = 0; i < 2; i++) {
        uint64_t id;
        ask(&asked[i], 0);
        take_request(seen, 0, &id);
        put_done(&answers, id);
    }
    for (size_t i = 0; i < answers.bytes; i++) {
        size_t used = 99;
        kv_buf_append(&stream, kv_slice(answers.data + i, 1));
        cr_assert_eq(calls_input(seen->calls, 0, kv_buf_peek(&stream), &used), KV_OK);
        kv_buf_consume(&stream, used);
        cr_expect_eq(seen->answers, i + 1 < answers.bytes / 2 ? 0u : i + 1 < answers.bytes ? 1u : 2u);
    }
    kv_buf_free(&answers);
    kv_buf_free(&stream);
    seen_free(seen);
}

Test(calls, a_peer_that_breaks_the_protocol_is_reported)
{
    struct seen *seen = seen_new(2);
    struct asked asked = {seen, 1};
    uint64_t id = 0;
    calls_link_up(seen->calls, 0);
    calls_link_up(seen->calls, 1);
    ask(&asked, 0);
    take_request(seen, 0, &id);

    cr_expect_eq(answer(seen, 0, 0), KV_INVALID, "id 0 was never given out");
    cr_expect_eq(answer(seen, 0, id + 1), KV_INVALID, "nor was this one");
    cr_expect_eq(answer(seen, 1, id), KV_INVALID, "asked of shard 0, answered by shard 1");

    struct kv_buf wrong = {0};
    size_t used = 0, begin = kv_frame_begin(&wrong, KV_MSG_STAGED, id);
    kv_put_staged(&wrong, &(struct kv_msg_staged){.err = KV_OK, .object_id = 1});
    kv_frame_end(&wrong, begin);
    cr_expect_eq(calls_input(seen->calls, 0, kv_buf_peek(&wrong), &used), KV_INVALID, "COMMIT is answered by DONE");

    wrong.bytes = 0;
    begin = kv_frame_begin(&wrong, KV_MSG_COMMIT, id); /* a request, from a shard */
    kv_frame_end(&wrong, begin);
    cr_expect_eq(calls_input(seen->calls, 0, kv_buf_peek(&wrong), &used), KV_INVALID);

    memset(wrong.data, 0xff, KV_FRAME_HEADER_BYTES); /* 4 GiB of an unknown type */
    cr_expect_eq(calls_input(seen->calls, 0, kv_slice(wrong.data, KV_FRAME_HEADER_BYTES), &used), KV_INVALID);
    cr_expect_eq(seen->answers, 0u);
    cr_expect_eq(calls_waiting(seen->calls, 0), 1u, "the call waits for a better link");
    kv_buf_free(&wrong);
    seen_free(seen);
}

Test(calls, the_bound_refuses_all_but_transactions_under_way)
{
    struct seen *seen = seen_new(2);
    struct asked asked = {seen, 1};
    for (unsigned i = 0; i < CALLS_WAITING_MAX; i++)
        cr_assert_not_null(ask(&asked, 0));
    cr_expect_null(ask(&asked, 0));
    cr_expect_not_null(ask(&asked, 1), "the bound is one shard's");
    struct call *forced = calls_send(seen->calls, 0, KV_MSG_ABORT, true, write_number, on_done, &asked);
    cr_expect_not_null(forced);
    cr_expect_eq(calls_waiting(seen->calls, 0), CALLS_WAITING_MAX + 1u);
    calls_cancel(seen->calls, forced);
    cr_expect_null(ask(&asked, 0));

    calls_link_up(seen->calls, 0);
    for (uint64_t id; take_request(seen, 0, &id) != 0;) {
        cr_assert_eq(answer(seen, 0, id), KV_OK);
        if (seen->answers == 100)
            break; /* consuming the front of 2 MB each time is slow; the table has been exercised */
    }
    cr_expect_eq(calls_waiting(seen->calls, 0), CALLS_WAITING_MAX - 100u);
    cr_expect_not_null(ask(&asked, 0));
    seen_free(seen);
}

Test(calls, a_message_without_an_answer_leaves_only_when_the_link_is_up)
{
    struct seen *seen = seen_new(1);
    struct asked asked = {seen, 5};
    calls_tell(seen->calls, 0, KV_MSG_CLOSE, write_number, &asked);
    calls_link_up(seen->calls, 0);
    cr_expect_eq(take_request(seen, 0, NULL), 0u);
    calls_tell(seen->calls, 0, KV_MSG_CLOSE, write_number, &asked);
    cr_expect_eq(take_request(seen, 0, NULL), 5u);
    cr_expect_eq(calls_waiting(seen->calls, 0), 0u);
    seen_free(seen);
}

/* The new owner's body is what is sent again, and the old one hears nothing. */
Test(calls, a_call_is_handed_over)
{
    struct seen *seen = seen_new(1);
    struct asked first = {seen, 11}, second = {seen, 12};
    uint64_t id = 0;
    calls_link_up(seen->calls, 0);
    struct call *call = ask(&first, 0);
    cr_expect_eq(take_request(seen, 0, &id), 11u);
    calls_hand_over(call, write_number, on_done, &second);
    calls_link_down(seen->calls, 0);
    calls_link_up(seen->calls, 0);
    cr_expect_eq(take_request(seen, 0, &id), 12u);
    cr_expect_eq(answer(seen, 0, id), KV_OK);
    cr_expect_eq(seen->answers, 1u);
    cr_expect_eq(seen->last, 12u);
    seen_free(seen);
}

Test(calls, every_link_has_a_generation_of_its_own)
{
    struct seen *seen = seen_new(2);
    calls_link_up(seen->calls, 0);
    uint64_t generation = calls_link_generation(seen->calls, 0);
    calls_link_down(seen->calls, 0);
    cr_expect_eq(calls_link_generation(seen->calls, 0), generation, "until the next one is up");
    calls_link_up(seen->calls, 0);
    cr_expect_neq(calls_link_generation(seen->calls, 0), generation);
    cr_expect_eq(calls_link_generation(seen->calls, 1), 0u);
    seen_free(seen);
}

static void write_much(void *arg, struct kv_buf *buf)
{
    (void)arg;
    memset(kv_buf_reserve(buf, 1000), 0, 1000);
    buf->bytes += 1000;
}

/* A long turn does not keep a shard waiting for its end. */
Test(calls, much_output_is_written_before_the_turn_ends)
{
    struct seen *seen = kv_alloc_zero(1, sizeof(*seen));
    seen->calls = calls_new(2, &(struct calls_world){.ctx = seen, .wake = on_wake, .full = on_full});
    calls_link_up(seen->calls, 1);
    for (unsigned i = 0; i < 2 * CALLS_OUTPUT_BYTES / 1000; i++)
        calls_tell(seen->calls, 1, KV_MSG_CLOSE, write_much, NULL);
    cr_expect_eq(seen->fulls, 2);
    cr_expect_eq(seen->wakes[1], 3, "when it was empty at first, and behind each full one");
    seen_free(seen);
}
