/* Goal: large contents come back hashed and encoded, once each, however many there are and whoever gives up; memory stays bounded.
 * Method: a real loop in this thread and the real worker; contents are freed the moment their job is cancelled, as libh2o does.
 * Runs under the thread sanitizer too (label tsan). */
#include <criterion/criterion.h>
#include <h2o.h>
#include <stdlib.h>

#include "digest.h"
#include "kv/clock.h"
#include "work.h"

enum { JOBS_MAX = 1200 };

static h2o_evloop_t *loop;
static h2o_multithread_receiver_t receiver;
static struct work *work;
static struct codec *codec;
static size_t done;

static void setup(void)
{
    loop = h2o_evloop_create();
    h2o_multithread_register_receiver(h2o_multithread_create_queue(loop), &receiver, work_on_messages);
    work = work_new(1);
    codec = codec_new(1);
}

static void clean(void)
{
    work_free(&work);
    codec_free(&codec);
}

TestSuite(work, .init = setup, .fini = clean);

static struct kv_slice make_content(size_t bytes, unsigned seed)
{
    uint8_t *content = kv_alloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        content[i] = (uint8_t)("abcdef"[(i * 7 + i / 300 + seed) % 6]);
    return kv_slice(content, bytes);
}

static void on_done(struct work_job *job)
{
    (void)job;
    done++;
}

static void wait_done(size_t count)
{
    uint64_t give_up_ms = kv_clock_ms() + 60000;
    while (done < count && kv_clock_ms() < give_up_ms)
        h2o_evloop_run(loop, 100);
    cr_assert_eq(done, count);
}

static void expect_result(struct work_job *job)
{
    struct kv_hash hash = digest_of(job->content);
    struct kv_buf back = {0};
    cr_expect(kv_hash_equal(&hash, &job->hash));
    cr_expect_eq(codec_decode(codec, kv_buf_peek(&job->stored), job->content.bytes, &back), KV_OK);
    cr_expect(kv_slice_equal(kv_buf_peek(&back), job->content));
    kv_buf_free(&back);
    work_let_go(work, job);
    kv_buf_free(&job->stored);
    free((void *)job->content.data);
}

Test(work, contents_come_back_exactly)
{
    static const size_t sizes[] = {1, 65537, 262144, 262145, 524288, 524289, 3000000};
    struct work_job jobs[7] = {0};
    for (unsigned i = 0; i < 7; i++) {
        jobs[i] = (struct work_job){.content = make_content(sizes[i], i), .receiver = &receiver, .on_done = on_done};
        cr_assert_eq(work_submit(work, &jobs[i]), KV_OK);
    }
    cr_expect_eq(done, 0, "never from within work_submit");
    wait_done(7);
    for (unsigned i = 0; i < 7; i++)
        expect_result(&jobs[i]);
}

Test(work, a_content_may_die_at_any_time)
{
    struct work_job *jobs = kv_alloc_zero(64, sizeof(*jobs));
    for (unsigned i = 0; i < 64; i++) {
        jobs[i] = (struct work_job){.content = make_content(1000000, i), .receiver = &receiver, .on_done = on_done};
        cr_assert_eq(work_submit(work, &jobs[i]), KV_OK);
    }
    for (unsigned i = 0; i < 64; i += 2) {
        const uint8_t *content = jobs[i].content.data;
        work_cancel(&jobs[i]);
        free((void *)content); /* AddressSanitizer sees whoever still reads it */
        h2o_evloop_run(loop, 0);
    }
    wait_done(64);
    for (unsigned i = 0; i < 64; i++) {
        cr_expect_eq(jobs[i].cancelled, i % 2 == 0);
        if (!jobs[i].cancelled) {
            expect_result(&jobs[i]);
            continue;
        }
        work_let_go(work, &jobs[i]);
        kv_buf_free(&jobs[i].stored);
    }
    free(jobs);
}

/* Without work_let_go no more than WORK_CONTENT_BYTES_MAX may begin; the queue behind is bounded. */
Test(work, what_is_not_let_go_of_holds_up_the_rest)
{
    struct kv_slice content = make_content(32 << 20, 1);
    struct work_job *jobs = kv_alloc_zero(JOBS_MAX, sizeof(*jobs));
    const size_t begun = WORK_CONTENT_BYTES_MAX / content.bytes;
    size_t taken = 0;
    for (; taken < JOBS_MAX; taken++) {
        jobs[taken] = (struct work_job){.content = content, .receiver = &receiver, .on_done = on_done};
        if (work_submit(work, &jobs[taken]) != KV_OK)
            break;
    }
    cr_expect_eq(taken, begun + WORK_JOBS_MAX);
    wait_done(begun);
    h2o_evloop_run(loop, 100);
    cr_expect_eq(done, begun);
    for (size_t i = begun; i < taken; i++)
        work_cancel(&jobs[i]);
    for (size_t i = 0; i < taken; i++) { /* letting go of each admits the next */
        wait_done(begun + i < taken ? begun + i : taken);
        work_let_go(work, &jobs[i]);
        kv_buf_free(&jobs[i].stored);
    }
    free(jobs);
    free((void *)content.data);
}

/* ---- contents in files -------------------------------------------------------------------------------------------- */

enum { FILE_OFFSET = 5000, BEHIND = 7 };

/* A file as a connection leaves it: something before the content, something behind it. */
static struct body_file *make_file_of(struct kv_slice content, uint64_t expected)
{
    uint8_t other[FILE_OFFSET];
    memset(other, 'x', sizeof(other));
    struct body_file *file = body_file_new(expected, 0);
    cr_assert_eq(body_file_extend(file, FILE_OFFSET + content.bytes + BEHIND, true), KV_OK);
    cr_assert_eq(body_file_write(file, 0, other, FILE_OFFSET), KV_OK);
    cr_assert_eq(body_file_write(file, FILE_OFFSET, content.data, content.bytes), KV_OK);
    cr_assert_eq(body_file_write(file, FILE_OFFSET + content.bytes, other, BEHIND), KV_OK);
    return file;
}

static struct body_file *make_file(struct kv_slice content)
{
    return make_file_of(content, SIZE_MAX);
}

static void expect_others_untouched(const struct body_file *file, size_t content_bytes)
{
    uint8_t other[FILE_OFFSET];
    cr_assert_eq(body_file_read(file, 0, other, FILE_OFFSET), KV_OK);
    for (size_t i = 0; i < FILE_OFFSET; i++)
        cr_assert_eq(other[i], 'x', "byte %zu before the content", i);
    cr_assert_eq(body_file_read(file, FILE_OFFSET + content_bytes, other, BEHIND), KV_OK);
    cr_assert_eq(memcmp(other, "xxxxxxx", BEHIND), 0);
}

static void expect_result_in_file(struct work_job *job, struct kv_slice content)
{
    struct kv_hash hash = digest_of(content);
    struct kv_buf back = {0};
    cr_expect_eq(job->err, KV_OK);
    cr_expect(kv_hash_equal(&hash, &job->hash));
    size_t frame_bytes = job->stored_bytes - job->stored.bytes;
    cr_assert_eq(body_file_read(job->file, job->file_offset, kv_buf_reserve(&job->stored, frame_bytes), frame_bytes),
                 KV_OK);
    job->stored.bytes += frame_bytes;
    cr_expect_eq(codec_decode(codec, kv_buf_peek(&job->stored), content.bytes, &back), KV_OK);
    cr_expect(kv_slice_equal(kv_buf_peek(&back), content));
    kv_buf_free(&back);
    expect_others_untouched(job->file, content.bytes);
}

static void end_in_file(struct work_job *job)
{
    work_let_go(work, job);
    kv_buf_free(&job->stored);
    body_file_free(&job->file);
}

static void fill_random(uint8_t *bytes, size_t count)
{
    uint64_t state = 88172645463325252u;
    for (size_t i = 0; i < count; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes[i] = (uint8_t)state;
    }
}

Test(work, a_content_in_a_file_becomes_its_frames_in_place)
{
    body_files_init(UINT64_MAX);
    static const size_t sizes[] = {600000, 524288, 1048577, 4000000, 262144 * 5 + 100};
    for (unsigned i = 0; i < 5 * 3; i++) {
        struct kv_slice content = make_content(sizes[i % 5], i);
        if (i / 5 == 1) /* raw frames before compressed ones, and the other way round */
            fill_random((uint8_t *)(uintptr_t)content.data, content.bytes / 2);
        if (i / 5 == 2)
            fill_random((uint8_t *)(uintptr_t)content.data + content.bytes / 3, content.bytes - content.bytes / 3);
        struct work_job job = {.content = kv_slice(NULL, content.bytes),
                               .file = make_file(content),
                               .file_offset = FILE_OFFSET,
                               .receiver = &receiver,
                               .on_done = on_done};
        cr_assert_eq(work_submit(work, &job), KV_OK);
        wait_done(i + 1);
        expect_result_in_file(&job, content);
        end_in_file(&job);
        free((void *)(uintptr_t)content.data);
    }
    cr_expect_eq(body_file_bytes(), 0);
}

Test(work, a_file_may_be_given_up_at_any_time)
{
    body_files_init(UINT64_MAX);
    struct kv_slice content = make_content(8000000, 3);
    struct work_job *jobs = kv_alloc_zero(16, sizeof(*jobs));
    for (unsigned i = 0; i < 16; i++) {
        jobs[i] = (struct work_job){.content = kv_slice(NULL, content.bytes),
                                    .file = make_file(content),
                                    .file_offset = FILE_OFFSET,
                                    .receiver = &receiver,
                                    .on_done = on_done};
        cr_assert_eq(work_submit(work, &jobs[i]), KV_OK);
    }
    for (unsigned i = 0; i < 16; i += 2) {
        h2o_evloop_run(loop, 2);
        work_cancel(&jobs[i]);
    }
    wait_done(16);
    for (unsigned i = 0; i < 16; i++) {
        if (!jobs[i].cancelled)
            expect_result_in_file(&jobs[i], content);
        work_let_go(work, &jobs[i]);
        kv_buf_free(&jobs[i].stored);
        body_file_free(&jobs[i].file);
    }
    free(jobs);
    free((void *)(uintptr_t)content.data);
}

static struct work_job arriving_job(struct body_file *file, size_t bytes)
{
    return (struct work_job){.content = kv_slice(NULL, bytes),
                             .file = file,
                             .file_offset = FILE_OFFSET,
                             .arriving = true,
                             .receiver = &receiver,
                             .on_done = on_done};
}

/* What has not arrived is something else until just before work_arrived; of what compresses, frames are in the file long before the end
 * is. In memory and on the disk, in steps that fit into nothing. */
Test(work, a_content_that_arrives_is_worked_off_behind_it)
{
    body_files_init(UINT64_MAX);
    for (unsigned i = 0; i < 4; i++) {
        struct kv_slice content = make_content(i % 2 == 0 ? 3000000 : 2 * WORK_CHUNK_BYTES, i);
        struct kv_slice wrong = make_content(content.bytes, i + 1);
        struct body_file *file = make_file_of(wrong, i < 2 ? SIZE_MAX : BODY_FILE_MEMORY_MAX + 1);
        if (i == 0)
            cr_assert_not_null(body_file_map(file, body_file_length(file)));
        struct work_job job = arriving_job(file, content.bytes);
        size_t seen = 0;
        cr_assert_eq(work_submit(work, &job), KV_OK);
        for (size_t at = 0; at < content.bytes;) {
            size_t left = content.bytes - at, bytes = left < 170001 ? left : 170001;
            cr_assert_eq(body_file_write(file, FILE_OFFSET + at, content.data + at, bytes), KV_OK);
            at += bytes;
            for (int tries = 0; at == content.bytes && seen == 0 && tries < 10000; tries++) {
                uint8_t first[8];
                h2o_evloop_run(loop, 1);
                cr_assert_eq(body_file_read(file, FILE_OFFSET, first, sizeof(first)), KV_OK);
                seen = memcmp(first, content.data, sizeof(first)) != 0;
            }
            cr_expect_eq(done, i, "not before it is told of the end");
            work_arrived(&job, at);
        }
        cr_expect_eq(seen, 1, "it did not begin before the end");
        wait_done(i + 1);
        expect_result_in_file(&job, content);
        end_in_file(&job);
        free((void *)(uintptr_t)content.data);
        free((void *)(uintptr_t)wrong.data);
    }
}

/* Before anything has come, and in the middle, where it waits for more. */
Test(work, a_content_that_stops_arriving_may_be_given_up)
{
    body_files_init(UINT64_MAX);
    struct kv_slice content = make_content(3000000, 3);
    struct work_job jobs[2];
    for (unsigned i = 0; i < 2; i++) {
        jobs[i] = arriving_job(make_file(content), content.bytes);
        cr_assert_eq(work_submit(work, &jobs[i]), KV_OK);
    }
    work_arrived(&jobs[1], 2000000);
    h2o_evloop_run(loop, 50);
    cr_expect_eq(done, 0);
    for (unsigned i = 0; i < 2; i++)
        work_cancel(&jobs[i]);
    wait_done(2);
    for (unsigned i = 0; i < 2; i++) {
        work_let_go(work, &jobs[i]);
        kv_buf_free(&jobs[i].stored);
        body_file_free(&jobs[i].file);
    }
    cr_expect_eq(work_load(work).jobs, 0);
    free((void *)(uintptr_t)content.data);
}

/* A file that ends too early, as on a broken disk: nobody hears of it before the end has arrived. */
Test(work, a_file_that_cannot_be_read_is_an_error)
{
    body_files_init(UINT64_MAX);
    struct kv_slice content = make_content(600000, 3);
    for (unsigned i = 0; i < 2; i++) {
        struct work_job job = arriving_job(make_file(content), 9000000);
        job.arriving = i == 1;
        cr_assert_eq(work_submit(work, &job), KV_OK);
        if (i == 1) {
            work_arrived(&job, 8999999);
            h2o_evloop_run(loop, 100);
            cr_expect_eq(done, 1);
            work_arrived(&job, 9000000);
        }
        wait_done(i + 1);
        cr_expect_eq(job.err, KV_IO);
        end_in_file(&job);
    }
    free((void *)(uintptr_t)content.data);
}
