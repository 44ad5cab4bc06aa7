/* Goal: the applier reports each piece of work once and only when it is done, keeps order, survives a full disk, and stops
 * at any time.
 * Method: a store that is not there: its functions count, wait at a gate, or fail as the test says. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <sys/mman.h>

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../histograms.h"
#include "applier.h"
#include "kv/clock.h"

#define WAIT_MS_MAX 60000

struct twin {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool gate_closed; /* every call waits here */
    unsigned inside;
    enum kv_err apply_err, stage_err, sweep_err;
    unsigned applies, stages, unstages, sweeps;
    unsigned learn_steps, learns; /* to do in all, and done */
    enum kv_err learn_err;
    uint64_t unreadable_id; /* a piece of this content makes a group fail */
    unsigned sweeps_before; /* the last stage */
    size_t largest_group;
    uint64_t largest_group_bytes;
    size_t held_count; /* of the last sweep */
    char order[64];    /* a letter per call */
    unsigned trims;
    pthread_t trimmed_by;
};

static enum kv_err enter(struct twin *twin, char letter, unsigned *count, enum kv_err err)
{
    pthread_mutex_lock(&twin->mutex);
    twin->inside++;
    size_t length = strlen(twin->order);
    if (letter != 'w' && length + 1 < sizeof(twin->order))
        twin->order[length] = letter;
    pthread_cond_broadcast(&twin->changed);
    while (twin->gate_closed)
        pthread_cond_wait(&twin->changed, &twin->mutex);
    (*count)++;
    pthread_mutex_unlock(&twin->mutex);
    return err;
}

static enum kv_err twin_apply(void *ctx, const struct core_generation *generation, size_t sweep_rows_max)
{
    struct twin *twin = ctx;
    cr_assert_not_null(generation->rows);
    cr_assert_gt(sweep_rows_max, 0);
    return enter(twin, 'a', &twin->applies, twin->apply_err);
}

static enum kv_err twin_stage(void *ctx, const struct store_piece *pieces, size_t count)
{
    struct twin *twin = ctx;
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += store_piece_bytes(&pieces[i]);
        if (pieces[i].object_id == twin->unreadable_id)
            return enter(twin, 's', &twin->stages, KV_INVALID);
        for (size_t j = 0; j < pieces[i].bytes.bytes; j++)
            cr_assert_eq(pieces[i].bytes.data[j], (uint8_t)pieces[i].object_id);
    }
    twin->sweeps_before = twin->sweeps;
    if (count > twin->largest_group)
        twin->largest_group = count;
    if (bytes > twin->largest_group_bytes)
        twin->largest_group_bytes = bytes;
    return enter(twin, 's', &twin->stages, twin->stage_err);
}

static enum kv_err twin_unstage(void *ctx, const uint64_t *object_ids, size_t count)
{
    struct twin *twin = ctx;
    cr_assert(count > 0 && object_ids[0] != 0);
    return enter(twin, 'u', &twin->unstages, KV_OK);
}

static enum kv_err twin_sweep(void *ctx, const uint64_t *held, size_t held_count, size_t sweep_rows_max)
{
    struct twin *twin = ctx;
    cr_assert(held_count == 0 || held[0] == 77);
    cr_assert_gt(sweep_rows_max, 0);
    twin->held_count = held_count;
    return enter(twin, 'w', &twin->sweeps, twin->sweep_err);
}

static enum kv_err twin_learn(void *ctx)
{
    struct twin *twin = ctx;
    pthread_mutex_lock(&twin->mutex);
    enum kv_err err = twin->learns < twin->learn_steps ? twin->learn_err : KV_NOT_FOUND;
    twin->learns++;
    pthread_mutex_unlock(&twin->mutex);
    return err;
}

static void twin_trim(void *ctx)
{
    struct twin *twin = ctx;
    enter(twin, 't', &twin->trims, KV_OK);
    twin->trimmed_by = pthread_self();
}

static struct twin *twin_new(void)
{
    struct twin *twin = kv_alloc_zero(1, sizeof(*twin));
    pthread_mutex_init(&twin->mutex, NULL);
    pthread_cond_init(&twin->changed, NULL);
    twin->sweep_err = KV_NOT_FOUND;
    return twin;
}

static struct applier *applier_with(struct twin *twin)
{
    struct applier_world world = {twin, twin_apply, twin_stage, twin_unstage, twin_sweep, twin_learn, twin_trim};
    return applier_new(&world);
}

static void gate(struct twin *twin, bool closed)
{
    pthread_mutex_lock(&twin->mutex);
    twin->gate_closed = closed;
    pthread_cond_broadcast(&twin->changed);
    pthread_mutex_unlock(&twin->mutex);
}

static void wait_inside(struct twin *twin, unsigned count)
{
    pthread_mutex_lock(&twin->mutex);
    while (twin->inside < count)
        pthread_cond_wait(&twin->changed, &twin->mutex);
    pthread_mutex_unlock(&twin->mutex);
}

static struct applier_result next(struct applier *applier)
{
    struct applier_result result = {0};
    uint64_t end = kv_clock_ms() + WAIT_MS_MAX, count;
    while (!applier_next(applier, &result)) {
        struct pollfd event = {.fd = applier_event_fd(applier), .events = POLLIN};
        cr_assert_lt(kv_clock_ms(), end, "no result came");
        if (poll(&event, 1, 100) == 1)
            cr_assert_eq(read(event.fd, &count, sizeof(count)), (ssize_t)sizeof(count));
    }
    return result;
}

static void stage(struct applier *applier, uint64_t request_id, uint64_t object_id, size_t bytes)
{
    uint8_t *content = kv_alloc(bytes);
    memset(content, (int)object_id, bytes);
    struct store_piece piece = {.object_id = object_id, .offset = 4080, .bytes = kv_slice(content, bytes)};
    applier_stage(applier, 3, request_id, &piece);
    free(content); /* it was copied */
}

static struct core_generation generation_new(uint64_t *held, size_t held_count)
{
    struct core_generation generation = {.rows = overlay_new(), .held = held, .held_count = held_count};
    overlay_put(generation.rows, OVERLAY_KEYS, kv_slice_text("k"), kv_slice_text("v"), 1);
    return generation;
}

Test(applier, applies_then_sweeps_what_nobody_reads)
{
    struct twin *twin = twin_new();
    struct applier *applier = applier_with(twin);
    struct applier_stats stats;
    uint64_t held[] = {77};
    struct core_generation generation = generation_new(held, 1);
    wait_inside(twin, 1); /* the sweep of the start */
    applier_apply(applier, &generation);
    cr_expect_eq(next(applier).kind, APPLIER_APPLIED);
    wait_inside(twin, 3);
    applier_free(&applier);
    cr_expect_null(applier);
    cr_expect_eq(twin->applies, 1u);
    cr_expect_eq(twin->sweeps, 2u);
    cr_expect_eq(twin->held_count, 1u);
    overlay_free(&generation.rows);
    applier = applier_with(twin);
    applier_stats(applier, &stats);
    cr_expect_eq(histogram_count(&stats.generation_ns), 0u);
    applier_free(&applier);
    free(twin);
}

/* It may be half in the store, and what it has made free there may still be read. */
Test(applier, a_refused_generation_holds_what_it_held)
{
    struct twin *twin = twin_new();
    struct applier *applier = applier_with(twin);
    uint64_t held[] = {77};
    struct core_generation generation = generation_new(held, 1);
    wait_inside(twin, 1); /* the sweep of the start */
    twin->apply_err = KV_NO_SPACE;
    applier_apply(applier, &generation);
    wait_inside(twin, 3); /* the refusal, and a sweep that may make room */
    applier_free(&applier);
    cr_expect_eq(twin->sweeps, 2u);
    cr_expect_eq(twin->held_count, 1u);
    overlay_free(&generation.rows);
    free(twin);
}

static void wait_idle(struct applier *applier)
{
    uint64_t end = kv_clock_ms() + WAIT_MS_MAX;
    while (!applier_is_idle(applier)) {
        cr_assert_lt(kv_clock_ms(), end, "it does not come to rest");
        usleep(1000);
    }
}

Test(applier, is_idle_when_all_is_done_and_swept)
{
    struct twin *twin = twin_new();
    struct applier *applier = applier_with(twin);
    struct core_generation generation = generation_new(NULL, 0);
    wait_idle(applier);
    gate(twin, true);
    applier_apply(applier, &generation);
    cr_expect_not(applier_is_idle(applier), "it may not even have noticed");
    wait_inside(twin, 2);
    cr_expect_not(applier_is_idle(applier));
    gate(twin, false);
    cr_expect_eq(next(applier).kind, APPLIER_APPLIED);
    wait_idle(applier);
    cr_expect_eq(twin->sweeps, 2u, "at the start and behind the generation");
    gate(twin, true);
    stage(applier, 1, 5, 100);
    cr_expect_not(applier_is_idle(applier));
    gate(twin, false);
    cr_expect_eq(next(applier).kind, APPLIER_STAGED);
    wait_idle(applier);
    applier_free(&applier);
    overlay_free(&generation.rows);
    free(twin);
}

/* Allocators keep a heap for each thread, and only the thread itself empties its own. */
Test(applier, gives_memory_back_on_its_own_thread)
{
    struct twin *twin = twin_new();
    struct applier *applier = applier_with(twin);
    for (unsigned i = 1; i <= 2; i++) {
        applier_trim(applier);
        wait_inside(twin, i + 1); /* a sweep came first */
    }
    applier_unstage(applier, 1);
    wait_inside(twin, 4);
    applier_free(&applier);
    cr_expect_eq(twin->trims, 2u);
    cr_expect_not(pthread_equal(twin->trimmed_by, pthread_self()));
    cr_expect_eq(twin->unstages, 1u, "it goes on");
    free(twin);
}

Test(applier, learns_step_by_step_behind_a_generation)
{
    struct twin *twin = twin_new();
    struct applier *applier = applier_with(twin);
    struct core_generation generation = generation_new(NULL, 0);
    twin->learn_steps = 5;
    wait_idle(applier);
    cr_expect_eq(twin->learns, 0u);
    applier_apply(applier, &generation);
    cr_expect_eq(next(applier).kind, APPLIER_APPLIED);
    wait_idle(applier);
    cr_expect_eq(twin->learns, 6u);
    twin->learn_steps = 10;
    twin->learn_err = KV_CORRUPT;
    applier_apply(applier, &generation);
    cr_expect_eq(next(applier).kind, APPLIER_APPLIED);
    struct applier_result result = next(applier);
    cr_expect_eq(result.kind, APPLIER_FAILED);
    cr_expect_eq(result.err, KV_CORRUPT);
    applier_free(&applier);
    overlay_free(&generation.rows);
    free(twin);
}

Test(applier, stages_what_is_queued_together_and_reports_each_piece)
{
    struct twin *twin = twin_new();
    struct applier_stats stats;
    twin->gate_closed = true;
    struct applier *applier = applier_with(twin);
    wait_inside(twin, 1); /* the sweep holds the thread while the queue fills */
    for (uint64_t i = 1; i <= 20; i++)
        stage(applier, i, 100 + i, 1024 * 1024);
    cr_expect(applier_staging(applier));
    gate(twin, false);
    for (uint64_t i = 1; i <= 20; i++) {
        struct applier_result result = next(applier);
        cr_expect_eq(result.kind, APPLIER_STAGED);
        cr_expect_eq(result.err, KV_OK);
        cr_expect_eq(result.session, 3u);
        cr_expect_eq(result.request_id, i);
        cr_expect_eq(result.object_id, 100 + i);
        cr_expect_eq(result.offset, 4080u);
        cr_expect_eq(result.bytes, 1024u * 1024);
    }
    cr_expect_eq(twin->stages, 2u, "16 pieces, then 4");
    cr_expect_eq(twin->largest_group, 16u);
    cr_expect_leq(twin->largest_group_bytes, APPLIER_GROUP_BYTES);
    applier_stats(applier, &stats);
    cr_expect_eq(stats.stage_bytes, 20u * 1024 * 1024);
    cr_expect_eq(stats.stage_queue_bytes, 0u);
    applier_free(&applier);
    free(twin);
}

Test(applier, a_file_that_cannot_be_read_fails_alone)
{
    struct twin *twin = twin_new();
    twin->gate_closed = true;
    twin->unreadable_id = 102;
    struct applier *applier = applier_with(twin);
    wait_inside(twin, 1);
    stage(applier, 1, 101, 10);
    int fd = memfd_create("content", MFD_CLOEXEC);
    struct store_piece piece = {.object_id = 102, .bytes = kv_slice("index", 5), .file = {fd, 0, 1000}};
    applier_stage(applier, 3, 2, &piece);
    stage(applier, 3, 103, 10);
    gate(twin, false);
    cr_expect_eq(next(applier).err, KV_OK);
    struct applier_result refused = next(applier);
    cr_expect_eq(refused.kind, APPLIER_STAGED);
    cr_expect_eq(refused.err, KV_IO);
    cr_expect_eq(refused.bytes, 1005u);
    cr_expect_eq(refused.copied_bytes, 5u);
    cr_expect_eq(next(applier).err, KV_OK);
    cr_expect_eq(twin->stages, 4u, "together, then each alone");
    applier_free(&applier);
    cr_expect_eq(fcntl(fd, F_GETFD), -1, "its descriptor is closed");
    free(twin);
}

Test(applier, a_descriptor_that_still_waits_is_closed_at_the_end)
{
    struct twin *twin = twin_new();
    twin->gate_closed = true;
    struct applier *applier = applier_with(twin);
    wait_inside(twin, 1);
    int fd = memfd_create("content", MFD_CLOEXEC);
    struct store_piece piece = {.object_id = 102, .file = {fd, 0, 1000}};
    applier_stage(applier, 3, 2, &piece);
    gate(twin, false);
    applier_free(&applier);
    cr_expect_eq(fcntl(fd, F_GETFD), -1);
    free(twin);
}

Test(applier, giving_up_comes_after_the_pieces_before_it)
{
    struct twin *twin = twin_new();
    twin->gate_closed = true;
    struct applier *applier = applier_with(twin);
    wait_inside(twin, 1);
    stage(applier, 1, 101, 10);
    applier_unstage(applier, 101);
    stage(applier, 2, 102, 10);
    gate(twin, false);
    next(applier);
    next(applier);
    applier_free(&applier);
    cr_expect_str_eq(twin->order, "sus");
    free(twin);
}

Test(applier, a_generation_and_pieces_take_turns)
{
    struct twin *twin = twin_new();
    twin->gate_closed = true;
    struct applier *applier = applier_with(twin);
    struct core_generation generation = generation_new(NULL, 0);
    wait_inside(twin, 1);
    stage(applier, 1, 101, 10);
    applier_apply(applier, &generation);
    gate(twin, false);
    cr_expect_eq(next(applier).kind, APPLIER_APPLIED);
    cr_expect_eq(next(applier).kind, APPLIER_STAGED);
    cr_expect_str_eq(twin->order, "as");
    applier_free(&applier);
    overlay_free(&generation.rows);
    free(twin);
}

/* Each change of kind begins a group. */
Test(applier, sweeps_between_groups_that_do_not_end)
{
    struct twin *twin = twin_new();
    gate(twin, true);
    struct applier *applier = applier_with(twin);
    wait_inside(twin, 1); /* in the sweep of the start, with all that follows behind it */
    twin->sweep_err = KV_OK;
    for (unsigned i = 0; i < 8; i++) {
        stage(applier, i, 5, 100);
        applier_unstage(applier, 6);
    }
    gate(twin, false);
    for (unsigned i = 0; i < 8; i++)
        cr_expect_eq(next(applier).kind, APPLIER_STAGED);
    cr_expect_geq(twin->sweeps_before, 7u, "15 groups came before the last piece: %u sweeps", twin->sweeps_before);
    applier_free(&applier);
    free(twin);
}

Test(applier, a_full_disk_keeps_the_generation_until_there_is_room)
{
    struct twin *twin = twin_new();
    struct applier_stats stats;
    struct core_generation generation = generation_new(NULL, 0);
    twin->apply_err = KV_NO_SPACE;
    struct applier *applier = applier_with(twin);
    applier_apply(applier, &generation);
    uint64_t end = kv_clock_ms() + WAIT_MS_MAX;
    while (!applier_full(applier) && kv_clock_ms() < end)
        usleep(1000);
    cr_assert(applier_full(applier));
    twin->stage_err = KV_NO_SPACE;
    stage(applier, 1, 101, 10);
    struct applier_result refused = next(applier);
    cr_expect_eq(refused.kind, APPLIER_STAGED);
    cr_expect_eq(refused.err, KV_NO_SPACE, "pieces are refused to whoever sent them");
    pthread_mutex_lock(&twin->mutex);
    twin->apply_err = KV_OK;
    pthread_mutex_unlock(&twin->mutex);
    cr_expect_eq(next(applier).kind, APPLIER_APPLIED);
    cr_expect_not(applier_full(applier));
    applier_stats(applier, &stats);
    cr_expect_eq(histogram_count(&stats.generation_ns), 1u);
    cr_expect_geq(stats.generations_refused, 1u);
    applier_free(&applier);
    overlay_free(&generation.rows);
    free(twin);
}

Test(applier, any_other_error_is_reported_as_failure)
{
    struct twin *twin = twin_new();
    struct core_generation generation = generation_new(NULL, 0);
    twin->apply_err = KV_CORRUPT;
    struct applier *applier = applier_with(twin);
    applier_apply(applier, &generation);
    struct applier_result failed = next(applier);
    cr_expect_eq(failed.kind, APPLIER_FAILED);
    cr_expect_eq(failed.err, KV_CORRUPT);
    cr_expect_not_null(failed.what);
    applier_free(&applier);
    overlay_free(&generation.rows);
    free(twin);
}

Test(applier, stops_with_work_in_its_queue)
{
    struct twin *twin = twin_new();
    twin->gate_closed = true;
    struct applier *applier = applier_with(twin);
    wait_inside(twin, 1);
    for (uint64_t i = 1; i <= 5; i++)
        stage(applier, i, i, 100);
    applier_unstage(applier, 9);
    gate(twin, false);
    applier_free(&applier);
    applier_free(&applier); /* NULL is accepted */
    cr_expect_leq(twin->stages, 2u);
    free(twin);
}
