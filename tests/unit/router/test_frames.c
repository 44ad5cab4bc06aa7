/* Goal: frames that are asked for again are kept and lent out as they were offered; nothing else costs memory.
 * Method: each rule by itself; then random asking, offering, letting go and sweeping from a seed beside what the test holds itself. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "frames.h"

enum { FRAME = KV_CONTENT_FRAME_BYTES, ROOM = 8 };

static struct frames *frames;

static void setup(void)
{
    frames = frames_new((uint64_t)ROOM * FRAME);
}

static void teardown(void)
{
    frames_free(&frames);
    cr_assert_null(frames);
}

TestSuite(frames, .init = setup, .fini = teardown);

static struct frames_span span(unsigned content, uint64_t first, uint64_t end)
{
    struct frames_span made = {.first = first, .end = end};
    memset(made.hash.bytes, (int)content, sizeof made.hash.bytes);
    return made;
}

/* What this frame of this content must be. */
static uint8_t byte_of(unsigned content, uint64_t number)
{
    return (uint8_t)(content * 31 + number * 7 + 1);
}

static void offer(unsigned content, uint64_t number, size_t bytes)
{
    struct frames_span one = span(content, number, number + 1);
    uint8_t *whole = malloc(bytes);
    memset(whole, byte_of(content, number), bytes);
    frames_offer(frames, &one.hash, number, kv_slice(whole, bytes));
    memset(whole, 0, bytes); /* it was copied */
    free(whole);
}

static void offer_all(const struct frames_span *asked)
{
    for (uint64_t number = asked->first; number < asked->end; number++)
        offer(asked->hash.bytes[0], number, FRAME);
}

static bool hold(unsigned content, uint64_t first, uint64_t end)
{
    struct frames_span asked = span(content, first, end);
    return frames_hold(frames, &asked);
}

static void let_go(unsigned content, uint64_t first, uint64_t end)
{
    struct frames_span held = span(content, first, end);
    frames_let_go(frames, &held);
}

/* As a GET does it; true: from memory. */
static bool get(unsigned content, uint64_t first, uint64_t end)
{
    struct frames_span asked = span(content, first, end);
    bool held = frames_hold(frames, &asked);
    if (held)
        frames_let_go(frames, &asked);
    else
        offer_all(&asked);
    return held;
}

static void expect_content(unsigned content, uint64_t number, size_t bytes)
{
    struct frames_span one = span(content, number, number + 1);
    struct kv_slice whole = frames_peek(frames, &one.hash, number);
    cr_assert_eq(whole.bytes, bytes);
    for (size_t i = 0; i < bytes; i += 4093)
        cr_assert_eq(whole.data[i], byte_of(content, number), "content %u frame %lu byte %zu", content, number, i);
}

Test(frames, are_kept_when_they_are_asked_for_again)
{
    cr_expect(!get(1, 0, 2));
    cr_expect_eq(frames_bytes(frames), 0, "the first time");
    cr_expect(!get(1, 0, 2));
    cr_expect_eq(frames_bytes(frames), 2 * FRAME);
    cr_expect_eq(frames_count(frames), 2);
    cr_expect(hold(1, 0, 2));
    expect_content(1, 0, FRAME);
    expect_content(1, 1, FRAME);
    let_go(1, 0, 2);
    cr_expect(!hold(2, 0, 1), "another content");
    cr_expect(!hold(1, 2, 3), "another frame");
    cr_expect(!hold(1, 1, 3), "a part of what is asked for");
    cr_expect(hold(1, 1, 2), "a part of what is there");
    let_go(1, 1, 2);
    offer(3, 0, FRAME);
    cr_expect_eq(frames_count(frames), 2, "nobody asked for it");
}

Test(frames, may_be_shorter)
{
    cr_expect(!hold(1, 0, 1));
    cr_expect(!hold(1, 0, 1));
    offer(1, 0, 70000);
    offer(1, 0, 70000);
    cr_expect_eq(frames_bytes(frames), 70000);
    cr_expect(hold(1, 0, 1));
    expect_content(1, 0, 70000);
    let_go(1, 0, 1);
}

Test(frames, one_answer_takes_a_quarter)
{
    for (unsigned i = 0; i < 3; i++)
        cr_expect(!get(1, 0, ROOM / 4 + 1));
    cr_expect_eq(frames_count(frames), 0);
}

Test(frames, a_scan_pushes_nobody_out)
{
    for (unsigned content = 0; content < ROOM / 2; content++)
        for (unsigned i = 0; i < 3; i++)
            get(content, 0, 2);
    cr_expect_eq(frames_count(frames), ROOM);
    for (unsigned i = 0; i < 3; i++) /* asked for as often as those that are there, at last */
        for (unsigned content = 10; content < 40; content++)
            get(content, 0, 2);
    for (unsigned content = 0; content < ROOM / 2; content++)
        cr_expect(get(content, 0, 2), "content %u", content);
    cr_expect_eq(frames_bytes(frames), ROOM * FRAME);
}

Test(frames, give_way_to_those_asked_for_more)
{
    for (unsigned content = 0; content < ROOM; content++)
        for (unsigned i = 0; i < 2; i++)
            get(content, 0, 1);
    get(0, 0, 1); /* not the one that was asked for longest ago, now */
    for (unsigned i = 0; i < 4; i++)
        get(99, 0, 1);
    cr_expect(get(99, 0, 1));
    cr_expect(get(0, 0, 1));
    for (unsigned content = 2; content < ROOM; content++)
        cr_expect(get(content, 0, 1), "content %u", content);
    cr_expect(!hold(1, 0, 1), "the oldest left");
    cr_expect_eq(frames_bytes(frames), ROOM * FRAME);
}

Test(frames, stay_while_they_are_lent_out)
{
    for (unsigned content = 0; content < ROOM; content++)
        for (unsigned i = 0; i < 2; i++)
            get(content, 0, 1);
    for (unsigned content = 0; content < ROOM; content++)
        cr_expect(hold(content, 0, 1));
    for (unsigned i = 0; i < 20; i++)
        cr_expect(!get(99, 0, 1), "everything is lent out");
    for (unsigned i = 0; i < 20; i++)
        frames_sweep(frames);
    for (unsigned content = 0; content < ROOM; content++) {
        expect_content(content, 0, FRAME);
        let_go(content, 0, 1);
    }
    frames_sweep(frames);
    cr_expect_eq(frames_bytes(frames), 0);
}

Test(frames, leave_when_nobody_asks)
{
    for (unsigned i = 0; i < 2; i++)
        get(1, 0, 2);
    for (unsigned i = 0; i < 1000; i++)
        get(2, 0, 2);
    cr_expect_eq(frames_count(frames), 4);
    for (unsigned i = 0; i < 3; i++)
        cr_expect_eq(frames_sweep(frames), i == 2, "says when it frees");
    cr_expect_eq(frames_count(frames), 2, "asked for twice: 2, 1, 0");
    for (unsigned i = 3; i < 9; i++)
        frames_sweep(frames);
    cr_expect_eq(frames_bytes(frames), 0, "asked for without end: nine sweeps");
    cr_expect(!get(1, 0, 2));
    cr_expect_eq(frames_count(frames), 0, "how often it was asked for is forgotten, too");
}

/* What is counted only is bounded: the first ones are as new when as many others were asked for. */
Test(frames, counts_are_bounded)
{
    const uint64_t most = (uint64_t)ROOM * FRAME / FRAMES_ASKED_BYTES + 1;
    get(1, 0, 1);
    for (uint64_t i = 0; i < most; i++)
        hold(2, i, i + 1);
    get(1, 0, 1);
    cr_expect_eq(frames_count(frames), 0, "it was forgotten");
    for (uint64_t i = 0; i + 1 < most; i++)
        hold(3, i, i + 1);
    get(1, 0, 1);
    cr_expect_eq(frames_count(frames), 1, "it was not");
}

Test(frames, none)
{
    struct frames *no = frames_new(0);
    struct frames_span asked = span(1, 0, 1), nothing = {.first = 0, .end = 0};
    cr_assert_null(no);
    cr_expect(!frames_hold(no, &asked));
    frames_offer(no, &asked.hash, 0, kv_slice("x", 1));
    frames_let_go(no, &nothing);
    frames_sweep(no);
    cr_expect_eq(frames_bytes(no) + frames_count(no), 0);
    frames_free(&no);
}

/* ---- at random ---------------------------------------------------------------------------------------------------- */

enum { CONTENTS = 12, FRAMES = 4, STEPS = 3000, HOLDS = 6 };

static uint32_t seed = 7;

static unsigned random_below(unsigned end)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % end;
}

Test(frames, at_random)
{
    struct frames_span held[HOLDS] = {{.end = 0}};
    unsigned from_memory = 0;
    for (unsigned step = 0; step < STEPS; step++) {
        struct frames_span *slot = &held[random_below(HOLDS)];
        if (slot->first < slot->end) {
            for (uint64_t number = slot->first; number < slot->end; number++)
                expect_content(slot->hash.bytes[0], number, FRAME);
            frames_let_go(frames, slot);
            slot->end = slot->first;
        }
        uint64_t first = random_below(FRAMES);
        struct frames_span asked = span(random_below(CONTENTS), first, first + 1 + random_below(2));
        if (frames_hold(frames, &asked)) {
            *slot = asked;
            from_memory++;
        } else {
            offer_all(&asked);
        }
        if (random_below(200) == 0)
            frames_sweep(frames);
        cr_assert_leq(frames_bytes(frames), ROOM * FRAME);
        cr_assert_eq(frames_bytes(frames), frames_count(frames) * FRAME);
    }
    cr_expect_gt(from_memory, STEPS / 20, "%u", from_memory);
    for (unsigned i = 0; i < HOLDS; i++)
        frames_let_go(frames, &held[i]);
}
