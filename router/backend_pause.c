/* router/backend_pause.c -- a short pause before a call begins again. What it met (a reference that somebody's COMMIT is about to
 * settle, a content that has just gone) is over in a moment: asking again at once would only keep the shard from getting there.
 * Pauses double up to a limit, and half of each is chance, so that those who met once do not meet again. A long pause costs nobody a
 * place: it is taken outside of the queues for locks, which are first come, first served. Tests: unit/router/test_pause.c, sim/. */
#include "backend_internal.h"

#include <utlist.h>

#include "kv/clock.h"
#include "random.h"

static uint64_t pause_ms(struct backend *backend, unsigned pauses)
{
    uint64_t longest = BACKEND_PAUSE_MS_MAX;
    if (pauses < 16 && ((uint64_t)BACKEND_PAUSE_MS_MIN << pauses) < longest)
        longest = (uint64_t)BACKEND_PAUSE_MS_MIN << pauses;
    return longest - random_next(&backend->chance) % (longest / 2 + 1);
}

void backend_call_pause(struct backend_call *call, void (*resume)(struct backend_call *call))
{
    struct backend *backend = call->backend;
    call->resume = resume;
    call->resume_ms = kv_clock_ms() + pause_ms(backend, call->pauses++);
    DL_APPEND2(backend->paused, call, pause_prev, pause_next);
    backend->arm_pauses(backend);
}

void backend_call_unpause(struct backend_call *call)
{
    if (call->resume != NULL)
        DL_DELETE2(call->backend->paused, call, pause_prev, pause_next);
    call->resume = NULL;
}

/* A call that resumes may end itself, never another. */
void backend_resume_due(struct backend *backend)
{
    uint64_t now_ms = kv_clock_ms();
    struct backend_call *call, *after;
    DL_FOREACH_SAFE2(backend->paused, call, after, pause_next) {
        void (*resume)(struct backend_call * call) = call->resume;
        if (call->resume_ms > now_ms)
            continue;
        backend_call_unpause(call);
        resume(call);
    }
    if (backend->paused != NULL)
        backend->arm_pauses(backend);
}
