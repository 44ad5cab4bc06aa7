/* Goal: a call that begins again waits a little, longer each time but never long, not always the same, and not when it has ended.
 * Method: backend_pause.c on a backend that is nothing but its list of calls; pauses are read from the calls, time is made to have
 * passed by moving their ends. */
#include <criterion/criterion.h>

#include "backend_internal.h"
#include "kv/clock.h"

static unsigned armed, resumed;

static void arm(struct backend *backend)
{
    (void)backend;
    armed++;
}

static void on_resume(struct backend_call *call)
{
    (void)call;
    resumed++;
}

static uint64_t pause_of(struct backend_call *call)
{
    uint64_t before_ms = kv_clock_ms();
    backend_call_pause(call, on_resume);
    uint64_t after_ms = kv_clock_ms();
    return call->resume_ms > after_ms ? call->resume_ms - after_ms : call->resume_ms - before_ms;
}

Test(pause, doubles_up_to_its_limit)
{
    struct backend backend = {.arm_pauses = arm};
    struct backend_call call = {.backend = &backend};
    uint64_t longest = BACKEND_PAUSE_MS_MIN;
    for (unsigned i = 0; i < 40; i++) {
        cr_expect_leq(pause_of(&call), longest, "pause %u", i);
        backend_call_unpause(&call);
        longest = longest * 2 < BACKEND_PAUSE_MS_MAX ? longest * 2 : BACKEND_PAUSE_MS_MAX;
    }
    cr_expect_eq(armed, 40u);
    cr_expect_null(backend.paused);
}

Test(pause, is_never_nothing_and_half_of_it_is_chance)
{
    struct backend backend = {.arm_pauses = arm, .chance = 7};
    bool seen[BACKEND_PAUSE_MS_MAX + 1] = {false};
    for (unsigned i = 0; i < 2000; i++) {
        struct backend_call call = {.backend = &backend, .pauses = 30};
        uint64_t begin_ms = kv_clock_ms();
        backend_call_pause(&call, on_resume);
        cr_assert_geq(call.resume_ms, begin_ms + BACKEND_PAUSE_MS_MAX / 2);
        if (kv_clock_ms() == begin_ms)
            seen[call.resume_ms - begin_ms] = true;
        backend_call_unpause(&call);
    }
    unsigned different = 0;
    for (unsigned i = 0; i <= BACKEND_PAUSE_MS_MAX; i++)
        different += seen[i];
    cr_expect_gt(different, 4u);
}

Test(pause, who_is_due_resumes_once_and_the_others_wait_on)
{
    struct backend backend = {.arm_pauses = arm};
    struct backend_call calls[4];
    for (unsigned i = 0; i < 4; i++) {
        calls[i] = (struct backend_call){.backend = &backend};
        backend_call_pause(&calls[i], on_resume);
        calls[i].resume_ms = i < 3 ? 0 : UINT64_MAX;
    }
    backend_call_unpause(&calls[1]); /* it ended */
    armed = 0;
    backend_resume_due(&backend);
    cr_expect_eq(resumed, 2u);
    cr_expect_eq(armed, 1u, "for the last");
    cr_expect(backend.paused == &calls[3] && calls[0].resume == NULL);
    calls[3].resume_ms = 0;
    backend_resume_due(&backend);
    backend_resume_due(&backend);
    cr_expect_eq(resumed, 3u);
    cr_expect_eq(armed, 1u, "nobody is left");
}
