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
        jobs[i] = (struct work_job){.content = make_content(2000000, i), .receiver = &receiver, .on_done = on_done};
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
