/* A shard before a router that somebody has taken over: messages of any kind in any order, sessions that come and go, generations
 * that are frozen and applied, a restart from what was journaled. Input: per step what it is, then a session and a body. */
#include "fuzz.h"

#include "../unit/shard/core_rig.h"

enum { STEPS_MAX = 64, SESSIONS = 3 };
enum { CLOSE_SESSION = 240, FREEZE_AND_APPLY, RESTART, TICK };

static const enum kv_msg requests[] = {
#define X(name, id, from, to, answer, body) KV_MSG_##name,
    KV_MSG_TABLE(X)
#undef X
};

static void say(struct core_rig *rig, enum kv_msg type, struct kv_slice *input)
{
    uint64_t session = 1 + fuzz_number(input, 1) % SESSIONS;
    struct kv_slice body = fuzz_part(input, 2);
    uint8_t *copy = kv_copy(body); /* of its exact size */
    if (kv_msg_from(type, KV_ROLE_ROUTER) && type != KV_MSG_HELLO && type != KV_MSG_STATS &&
        core_message(rig->core, session, type, ++rig->requests, kv_slice(copy, body.bytes)) != KV_OK)
        core_session_closed(rig->core, session);
    free(copy);
}

static void step(struct core_rig *rig, struct kv_slice *input)
{
    uint64_t what = fuzz_number(input, 1);
    if (what < CLOSE_SESSION)
        say(rig, requests[what % (sizeof(requests) / sizeof(requests[0]))], input);
    else if (what == CLOSE_SESSION)
        core_session_closed(rig->core, 1 + fuzz_number(input, 1) % SESSIONS);
    else if (what == FREEZE_AND_APPLY && core_wants_freeze(rig->core, true))
        rig_apply(rig, rig_freeze(rig));
    else if (what == RESTART)
        rig_crash(rig, rig->count);
    else if (what == TICK)
        core_tick(rig->core, 1000, 500, KV_OVERLOADED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kv_slice input = kv_slice(data, bytes);
    struct core_rig *rig = core_rig_new();
    for (unsigned steps = 0; steps < STEPS_MAX && rig->count < RIG_RECORDS_MAX / 2 && input.bytes > 0; steps++)
        step(rig, &input);
    core_rig_free(rig);
    return 0;
}
