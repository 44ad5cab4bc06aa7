/* tests/sim/router.c -- see router.h. */
#include "router.h"

#include <stdlib.h>
#include <utlist.h>

#include "client.h"
#include "file.h"
#include "kv/clock.h"
#include "kv/log.h"
#include "kv/placement.h"
#include "wire/messages.h"

#define CACHE_BYTES 16384u /* so small that what is there is thrown out, too */
#define TICK_US (20 * SIM_MS)

static struct thread *thread_of(struct backend *backend)
{
    return (struct thread *)backend;
}

static struct sim *sim_of(const struct thread *thread)
{
    return thread->router->process.sim;
}

/* ---- the twin of backend.c: ids ------------------------------------------------------------------------------- */

static uint64_t next_id(void *ctx)
{
    struct thread *thread = thread_of(ctx);
    return txn_ids_next(thread->backend.ids, thread->backend.thread_index);
}

/* ---- the twin of backend.c: calls ----------------------------------------------------------------------------- */

void *backend_call_new(struct backend *backend, size_t bytes, void (*fail)(struct backend_call *call, enum kv_err err))
{
    struct backend_call *call = kv_alloc_zero(1, bytes);
    call->backend = backend;
    call->wanted = true;
    call->fail = fail;
    backend_call_renew(call);
    DL_APPEND(backend->list, call);
    backend->count++;
    if (backend->count % 2 == 0) /* most keys exist here: writes shall guess that they do not all the same */
        backend->creations = 1;
    return call;
}

void backend_call_renew(struct backend_call *call)
{
    call->deadline_ms = kv_clock_ms() + call->backend->wait_ms;
}

void backend_call_end(struct backend_call *call)
{
    backend_call_unpause(call);
    DL_DELETE(call->backend->list, call);
    call->backend->count--;
    free(call);
}

static void fail_due(struct backend *backend, uint64_t now_ms)
{
    struct backend_call *call, *after;
    DL_FOREACH_SAFE(backend->list, call, after) {
        if (call->failed != KV_OK)
            call->fail(call, call->failed);
        else if (call->deadline_ms <= now_ms)
            call->fail(call, KV_UNAVAILABLE);
    }
}

static void send_output(struct thread *thread, struct link *link)
{
    int fd;
    struct calls *calls = thread->backend.calls;
    struct kv_slice bytes;
    while ((bytes = calls_next_output(calls, link->shard_index, &fd)).bytes > 0) {
        struct body_file *file = fd < 0 ? NULL : sim_file_receive(thread->router, fd);
        link_send(&link->down, bytes, file);
        if (file != NULL && sim_of(thread)->fault == FAULT_FILE_FORGOTTEN)
            sim_file_forget(file);
        calls_sent(calls, link->shard_index, bytes.bytes);
    }
}

/* The end of the turn: frames that the calls wrote leave. */
static void flush(struct thread *thread)
{
    for (unsigned i = 0; i < thread->backend.shard_count; i++)
        if (thread->links[i] != NULL && thread->links[i]->is_up)
            send_output(thread, thread->links[i]);
}

static void on_flush(void *arg)
{
    flush(arg);
}

/* Every event of a thread ends in flush; what clients ask for comes from outside. */
static void on_wake(void *ctx, unsigned shard_index)
{
    struct thread *thread = ctx;
    (void)shard_index;
    sim_at(sim_of(thread), 0, &thread->router->process, false, on_flush, thread);
}

static void on_failures(void *arg)
{
    struct thread *thread = arg;
    thread->failures_are_due = false;
    fail_due(&thread->backend, 0);
}

void backend_call_fail_later(struct backend_call *call, enum kv_err err)
{
    struct thread *thread = thread_of(call->backend);
    call->failed = err;
    if (!thread->failures_are_due)
        sim_at(sim_of(thread), 0, &thread->router->process, false, on_failures, thread);
    thread->failures_are_due = true;
}

static void on_pause_tick(void *arg)
{
    struct thread *thread = arg;
    thread->pauses_are_due = false;
    backend_resume_due(&thread->backend);
    flush(thread);
}

static void arm_pauses(struct backend *backend)
{
    struct thread *thread = thread_of(backend);
    if (!thread->pauses_are_due)
        sim_at(sim_of(thread), BACKEND_PAUSE_TICK_MS * SIM_MS, &thread->router->process, false, on_pause_tick, thread);
    thread->pauses_are_due = true;
}

void backend_cancel(struct backend_call *call)
{
    if (call == NULL)
        return;
    call->wanted = false;
    call->deadline_ms = 0;
}

unsigned backend_shard_of(const struct backend *backend, const struct kv_hash *hash)
{
    return kv_shard_of(kv_hash_slice(hash), backend->shard_count);
}

bool backend_shard_answers(const struct backend *backend, unsigned shard_index)
{
    return calls_link_is_up(backend->calls, shard_index);
}

static void on_tick(void *arg)
{
    struct thread *thread = arg;
    struct backend *backend = &thread->backend;
    fail_due(backend, kv_clock_ms());
    txn_ids_publish(backend->ids, backend->thread_index, backend->txns, kv_clock_ms());
    if (backend->forget != NULL)
        forget_tick(backend->forget, kv_clock_ms());
    flush(thread);
    sim_at(sim_of(thread), TICK_US, &thread->router->process, false, on_tick, thread);
}

/* ---- links ---------------------------------------------------------------------------------------------------- */

static void send_hello(struct thread *thread, struct link *link)
{
    struct kv_buf buf = {0};
    size_t begin = kv_frame_begin(&buf, KV_MSG_HELLO, 0);
    kv_put_hello(&buf, &(struct kv_msg_hello){.version = KV_WIRE_VERSION,
                                              .role = KV_ROLE_ROUTER,
                                              .shard_index = link->shard_index,
                                              .shard_count = thread->backend.shard_count,
                                              .epoch = thread->router->epoch,
                                              .thread_index = thread->backend.thread_index});
    kv_frame_end(&buf, begin);
    link_send(&link->down, kv_buf_peek(&buf), NULL);
    kv_buf_free(&buf);
}

static void connect_link(struct thread *thread, unsigned shard_index)
{
    thread->links[shard_index] = link_new(thread->router, thread->backend.thread_index, shard_index);
    send_hello(thread, thread->links[shard_index]);
}

static void on_connect(void *arg)
{
    struct thread *thread = arg;
    for (unsigned i = 0; i < thread->backend.shard_count; i++) {
        if (thread->links[i] == NULL && thread->connect_is_due[i])
            connect_link(thread, i);
        thread->connect_is_due[i] = false;
    }
}

static void lose_link(struct thread *thread, struct link *link)
{
    unsigned shard_index = link->shard_index;
    bool was_up = link->is_up;
    link->router_open = false;
    link->is_up = false;
    link_drop(&link->up);
    link_cut(&link->down, false);
    link->broken = true;
    thread->links[shard_index] = NULL;
    SIM_TRACE(sim_of(thread), "router %llu thread %u loses its link to shard %u",
              (unsigned long long)thread->router->epoch, thread->backend.thread_index, shard_index);
    if (was_up) {
        calls_link_down(thread->backend.calls, shard_index);
        connect_link(thread, shard_index);
        return;
    }
    thread->connect_is_due[shard_index] = true;
    sim_at(sim_of(thread), 20 * SIM_MS, &thread->router->process, false, on_connect, thread);
}

static void take_hello(struct thread *thread, struct link *link, struct kv_slice bytes)
{
    struct kv_frame frame;
    struct kv_msg_hello hello;
    size_t used;
    if (kv_frame_peek(bytes, KV_ROLE_SHARD, &frame, &used) != KV_OK || kv_get_hello(frame.body, &hello) != KV_OK)
        sim_fail("a shard does not begin with HELLO");
    if (hello.epoch > thread->router->epoch) {
        router_crash(thread->router); /* kv_fatal */
        return;
    }
    if (hello.epoch < thread->router->epoch)
        sim_fail("a shard answered with an older epoch");
    link->is_up = true;
    calls_link_up(thread->backend.calls, link->shard_index);
}

void router_receive(struct link *link, struct kv_slice bytes)
{
    struct thread *thread = &link->router->threads[link->thread_index];
    if (bytes.bytes == 0) {
        lose_link(thread, link);
    } else if (!link->is_up) {
        take_hello(thread, link, bytes);
    } else {
        struct kv_frame frame;
        size_t used = 0;
        kv_frame_peek(bytes, KV_ROLE_SHARD, &frame, &used);
        SIM_TRACE(sim_of(thread), "router %llu.%u <- shard %u: %s %llu", (unsigned long long)link->router->epoch,
                  link->thread_index, link->shard_index, kv_msg_name(frame.type), (unsigned long long)frame.request_id);
        if (calls_input(thread->backend.calls, link->shard_index, bytes, &used) != KV_OK || used != bytes.bytes)
            sim_fail("router %llu cannot make sense of an answer of shard %u", (unsigned long long)link->router->epoch,
                     link->shard_index);
    }
    if (link->router->process.up)
        flush(thread);
}

/* ---- life ----------------------------------------------------------------------------------------------------- */

struct codec *router_codec(void)
{
    static struct codec *codec;
    if (codec == NULL)
        codec = codec_new(1);
    return codec;
}

static void on_recovered(void *arg)
{
    struct thread *thread = thread_of(arg);
    txn_ids_recovered(thread->backend.ids);
    SIM_TRACE(sim_of(thread), "router %llu has recovered", (unsigned long long)thread->router->epoch);
}

static void thread_start(struct router *router, unsigned index)
{
    struct thread *thread = &router->threads[index];
    const struct config *config = &router->process.sim->config;
    struct backend *backend = &thread->backend;
    thread->router = router;
    backend->thread_index = index;
    backend->shard_count = config->shard_count;
    backend->epoch = router->epoch;
    backend->wait_ms = config->wait_ms;
    backend->codec = router_codec();
    backend->arm_pauses = arm_pauses;
    backend->chance = kv_txn_id(router->epoch, index);
    backend->calls = calls_new(config->shard_count, &(struct calls_world){.ctx = thread, .wake = on_wake});
    backend->ids = &router->ids;
    struct txns_world world = {backend, next_id};
    backend->txns = txns_new(backend->calls, config->shard_count, &world);
    if (router->process.sim->fault != FAULT_UNMARKED_WRITE)
        txns_use_marks(backend->txns, router->marks);
    thread->cache = cache_new(CACHE_BYTES, router->marks);
    if (index == 0) {
        backend->recovery = recovery_new(backend->calls, config->shard_count, router->epoch, on_recovered, backend);
        backend->forget = forget_new(backend->calls, config->shard_count, backend->ids);
    }
    for (unsigned i = 0; i < config->shard_count; i++)
        connect_link(thread, i);
    sim_at(router->process.sim, TICK_US, &router->process, false, on_tick, thread);
}

static void leave_link(struct link *link)
{
    link->router_open = false;
    link->is_up = false;
    link_drop(&link->up);
    link_cut(&link->down, false);
    link->broken = true;
}

void router_start(struct sim *sim)
{
    struct router *router = kv_alloc_zero(1, sizeof *router);
    router->process = (struct process){.sim = sim, .incarnation = 1, .up = true};
    heap_init(&router->process.heap);
    router->older = sim->routers;
    router->epoch = ++sim->epoch;
    sim->routers = sim->router = router;
    txn_ids_init(&router->ids, router->epoch);
    SIM_TRACE(sim, "router %llu starts", (unsigned long long)router->epoch);
    struct heap *before = heap_enter(&router->process.heap);
    router->marks = marks_new(64, sim->epoch); /* so few that keys and contents share them */
    for (unsigned i = 0; i < sim->config.thread_count; i++)
        thread_start(router, i);
    heap_enter(before);
}

static void leave_links(struct router *router)
{
    for (struct link *link = router->process.sim->links; link != NULL; link = link->next) {
        if (link->router == router && link->router_open)
            leave_link(link);
    }
}

/* What a process has beside its heap. */
static void free_caches(struct router *router)
{
    for (unsigned i = 0; i < router->process.sim->config.thread_count; i++)
        cache_free(&router->threads[i].cache);
    marks_free(&router->marks);
}

static void free_threads(struct router *router)
{
    for (unsigned i = 0; i < router->process.sim->config.thread_count; i++) {
        recovery_free(&router->threads[i].backend.recovery);
        forget_free(&router->threads[i].backend.forget);
        txns_free(&router->threads[i].backend.txns);
        calls_free(&router->threads[i].backend.calls);
        for (unsigned j = 0; j < KV_SHARDS_MAX; j++)
            arena_free(&router->threads[i].backend.arena_rooms[j].arena);
    }
    free_caches(router);
    txn_ids_clear(&router->ids);
}

void router_crash(struct router *router)
{
    if (!router->process.up)
        return;
    SIM_TRACE(router->process.sim, "router %llu dies", (unsigned long long)router->epoch);
    router->process.up = false;
    router->process.incarnation++;
    router->process.stopped_until_us = 0;
    leave_links(router);
    if (random_chance(&router->process.sim->random, 200))
        free_threads(router); /* as a process that stops: whatever state it is in */
    else
        free_caches(router);
    sim_files_close(router);
    heap_free_all(&router->process.heap);
    client_on_router_dead(router);
}

void router_close(struct router *router)
{
    const char *why;
    if (!router_is_quiet(router, &why))
        sim_fail("router %llu is closed while %s", (unsigned long long)router->epoch, why);
    leave_links(router);
    router->process.up = false;
    router->process.incarnation++;
    free_threads(router);
    if (router->process.heap.count > 0)
        sim_fail("router %llu leaks %zu blocks of memory", (unsigned long long)router->epoch,
                 router->process.heap.count);
}

bool router_is_quiet(const struct router *router, const char **why)
{
    *why = !router->process.up ? "it is down" : !txn_ids_are_recovered(&router->ids) ? "it has not recovered" : NULL;
    for (unsigned i = 0; i < router->process.sim->config.thread_count && *why == NULL; i++) {
        const struct backend *backend = &router->threads[i].backend;
        if (backend->count > 0)
            *why = "calls are under way";
        else if (txns_active(backend->txns) > 0)
            *why = "transactions are under way";
    }
    return *why == NULL;
}
