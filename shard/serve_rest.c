/* shard/serve_rest.c -- what a shard gives back to the system when nobody comes any more.
 * Why:      after a load LMDB keeps a page of heap for each page of its largest transaction, buffers stay as large as they were, and
 *           malloc keeps what both have freed: 60 MiB that an idle shard does not need.
 * Promises: once per load, SERVE_REST_MS after it; a busy shard is left alone.
 * Tests:    unit/shard/test_serve.c, system/test_memory.c. */
#include "kv/log.h"
#include "serve_internal.h"

static void rest(struct serve *serve)
{
    char why[512];
    if (serve->written_bytes >= SERVE_REST_BYTES) {
        enum kv_err err = store_renew(serve->on.store, why, sizeof why);
        if (err != KV_OK)
            recovered_end(err, why);
        serve->written_bytes = 0;
    }
    sessions_trim(serve->sessions);
    core_trim(serve->on.core);
    journal_trim(serve->on.journal);
    kv_trim();
    applier_trim(serve->applier); /* behind what came from its thread and was freed here */
}

/* Pings go on all the time: nearly nobody is nobody. */
void serve_rest_if_due(struct serve *serve)
{
    uint64_t now_ms = loop_now_ms(serve->loop);
    if (now_ms - serve->quiet_ms < SERVE_REST_MS)
        return;
    bool quiet = serve->quiet_messages < SERVE_REST_MESSAGES;
    serve->quiet_ms = now_ms;
    serve->quiet_messages = 0;
    serve->rest_due = serve->rest_due || !quiet || serve->written_bytes >= SERVE_REST_BYTES;
    bool idle = serve->frozen == NULL && !core_wants_freeze(serve->on.core, true) && applier_is_idle(serve->applier);
    if (!quiet || !idle || !serve->rest_due || serve->stopping)
        return;
    rest(serve);
    serve->rest_due = false;
}
