/* router/backend.c -- see backend.h. This file: life, deadlines, transaction ids, readiness. */
#include "backend_internal.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include "kv/clock.h"
#include "kv/log.h"
#include "kv/placement.h"
#include "kv/settings.h"
#include "wire/messages.h"

#define TICK_MS 20u
#define PING_MS 500u       /* between an answer and the next question to a shard */
#define PING_WAIT_MS 2000u /* a shard that is silent for longer does not count as ready */

/* What the threads of the router share. */
static struct txn_ids router_wide;

static struct txn_ids *share_ids(uint64_t epoch)
{
    static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
    static bool started;
    pthread_mutex_lock(&starting);
    if (!started)
        txn_ids_init(&router_wide, epoch);
    started = true;
    pthread_mutex_unlock(&starting);
    return &router_wide;
}

static uint64_t next_id(void *ctx)
{
    struct backend *backend = ctx;
    return txn_ids_next(backend->ids, backend->thread_index);
}

/* ---- pings ---------------------------------------------------------------------------------------------------- */

/* The smallest question there is: how many keys refer to none of these contents. */
static void write_ping(void *arg, struct kv_buf *buf)
{
    (void)arg;
    kv_put_refs_begin(buf, 0);
}

static void on_ping(void *arg, struct kv_slice body)
{
    struct backend_ping *ping = arg;
    (void)body;
    ping->call = NULL;
    ping->heard_ms = kv_clock_ms();
}

static void ping_shards(struct backend *backend, uint64_t now_ms)
{
    for (unsigned i = 0; i < backend->shard_count; i++) {
        struct backend_ping *ping = &backend->pings[i];
        if (ping->call != NULL || now_ms - ping->since_ms < PING_MS || !calls_link_is_up(backend->calls, i))
            continue;
        ping->since_ms = now_ms;
        ping->call = calls_send(backend->calls, i, KV_MSG_REFS, true, write_ping, on_ping, ping);
    }
}

bool backend_shard_answers(const struct backend *backend, unsigned shard_index)
{
    const struct backend_ping *ping = &backend->pings[shard_index];
    bool is_silent = ping->call != NULL && kv_clock_ms() - ping->since_ms > PING_WAIT_MS;
    return calls_link_is_up(backend->calls, shard_index) && !is_silent;
}

/* One line when it begins and one when it is over, by one thread for all: requests say what became of each of them. A shard
 * that is started again is away for a moment only: of that tell the supervisor and shard_link.c. */
static void tell_of_silence(struct backend *backend, uint64_t now_ms)
{
    for (unsigned i = 0; i < backend->shard_count; i++) {
        struct backend_ping *ping = &backend->pings[i];
        bool answers = backend_shard_answers(backend, i);
        if (answers && ping->told)
            kv_info("shard %u answers again", i);
        else if (!answers && !ping->told && now_ms - ping->heard_ms > PING_MS + PING_WAIT_MS)
            kv_warn("shard %u does not answer: what needs it waits, SHARD_WAIT_MS at most", i);
        else
            continue;
        ping->told = !ping->told;
    }
}

/* ---- calls ---------------------------------------------------------------------------------------------------- */

void *backend_call_new(struct backend *backend, size_t bytes, void (*fail)(struct backend_call *call, enum kv_err err))
{
    struct backend_call *call = kv_alloc_zero(1, bytes);
    call->backend = backend;
    call->wanted = true;
    call->fail = fail;
    backend_call_renew(call);
    DL_APPEND(backend->list, call);
    backend->count++;
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
    if (call->on_over != NULL)
        call->on_over(call->on_over_arg);
    free(call);
}

void backend_call_fail_later(struct backend_call *call, enum kv_err err)
{
    struct backend *backend = call->backend;
    call->failed = err;
    if (!h2o_timeout_is_linked(&backend->failures))
        h2o_timeout_link(backend->context->loop, &backend->context->zero_timeout, &backend->failures);
}

void backend_cancel_and_tell(struct backend_call *call, void (*on_over)(void *arg), void *arg)
{
    if (call == NULL)
        return;
    call->on_over = on_over;
    call->on_over_arg = arg;
    call->wanted = false;
    call->deadline_ms = 0; /* the next tick ends it, where nobody is in the middle of it */
}

void backend_cancel(struct backend_call *call)
{
    backend_cancel_and_tell(call, NULL, NULL);
}

/* Ends what is due: `fail` may end other calls' callers, never other calls, so `after` stays valid. */
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

static void on_failures(h2o_timeout_entry_t *entry)
{
    struct backend *backend = H2O_STRUCT_FROM_MEMBER(struct backend, failures, entry);
    fail_due(backend, 0);
}

static void on_pause_tick(h2o_timeout_entry_t *entry)
{
    backend_resume_due(H2O_STRUCT_FROM_MEMBER(struct backend, pause_entry, entry));
}

static void arm_pauses(struct backend *backend)
{
    if (!h2o_timeout_is_linked(&backend->pause_entry))
        h2o_timeout_link(backend->context->loop, &backend->pause_tick, &backend->pause_entry);
}

static void on_tick(h2o_timeout_entry_t *entry)
{
    struct backend *backend = H2O_STRUCT_FROM_MEMBER(struct backend, tick_entry, entry);
    uint64_t now_ms = kv_clock_ms();
    fail_due(backend, now_ms);
    txn_ids_publish(backend->ids, backend->thread_index, backend->txns, now_ms);
    if (backend->forget != NULL)
        forget_tick(backend->forget, now_ms);
    ping_shards(backend, now_ms);
    if (backend->thread_index == 0)
        tell_of_silence(backend, now_ms);
    h2o_timeout_link(backend->context->loop, &backend->tick, &backend->tick_entry);
}

/* ---- life ----------------------------------------------------------------------------------------------------- */

unsigned backend_shard_of(const struct backend *backend, const struct kv_hash *hash)
{
    return kv_shard_of(kv_hash_slice(hash), backend->shard_count);
}

/* Before the first request leaves over the new link. */
static void on_link(void *arg, unsigned shard_index, bool up)
{
    struct backend *backend = arg;
    struct backend_ping *ping = &backend->pings[shard_index];
    if (up && backend->marks != NULL)
        marks_forget(backend->marks);
    if (up)
        ping->heard_ms = ping->since_ms = kv_clock_ms(); /* its HELLO; a question that was under way is asked anew */
}

static void on_recovered(void *arg)
{
    txn_ids_recovered(((struct backend *)arg)->ids);
    kv_info("nothing is in doubt");
}

struct backend *backend_new(const struct kv_settings *settings, h2o_context_t *context, int sockets_fd,
                            unsigned thread_index)
{
    kv_assert(thread_index < KV_ROUTER_THREADS_MAX);
    struct backend *backend = kv_alloc_zero(1, sizeof *backend);
    backend->context = context;
    backend->thread_index = thread_index;
    backend->shard_count = (unsigned)settings->shard_count;
    backend->epoch = settings->epoch;
    backend->wait_ms = settings->shard_wait_ms;
    backend->creations = BACKEND_CREATIONS_FIRST;
    backend->codec = codec_new((int)settings->compression_level);
    struct shard_links_options options = {.context = context,
                                          .sockets_fd = sockets_fd,
                                          .shard_count = backend->shard_count,
                                          .epoch = backend->epoch,
                                          .thread_index = thread_index,
                                          .on_change = on_link,
                                          .arg = backend};
    backend->links = shard_links_new(&options, &backend->calls);
    backend->ids = share_ids(backend->epoch);
    struct txns_world world = {backend, next_id};
    backend->txns = txns_new(backend->calls, backend->shard_count, &world);
    if (thread_index == 0) {
        backend->recovery = recovery_new(backend->calls, backend->shard_count, backend->epoch, on_recovered, backend);
        backend->forget = forget_new(backend->calls, backend->shard_count, backend->ids);
    }
    for (unsigned i = 0; i < backend->shard_count; i++)
        backend->pings[i].heard_ms = kv_clock_ms();
    h2o_timeout_init(context->loop, &backend->tick, TICK_MS);
    backend->tick_entry.cb = on_tick;
    backend->failures.cb = on_failures;
    backend->arm_pauses = arm_pauses;
    backend->chance = kv_txn_id(backend->epoch, thread_index);
    h2o_timeout_init(context->loop, &backend->pause_tick, BACKEND_PAUSE_TICK_MS);
    backend->pause_entry.cb = on_pause_tick;
    h2o_timeout_link(context->loop, &backend->tick, &backend->tick_entry);
    return backend;
}

void backend_use_marks(struct backend *backend, struct marks *marks)
{
    backend->marks = marks;
    txns_use_marks(backend->txns, marks);
}

bool backend_may_keep(const struct backend *backend)
{
    return txn_ids_are_recovered(backend->ids);
}

void backend_trim(struct backend *backend)
{
    codec_trim(backend->codec);
    backend_trim_arenas(backend);
    shard_links_trim(backend->links);
}

size_t backend_pending(const struct backend *backend)
{
    return backend->count + txns_active(backend->txns);
}

void backend_queues(const struct backend *backend, struct backend_queues *out)
{
    const struct backend_call *call;
    *out = (struct backend_queues){.transactions = txns_active(backend->txns), .shard_count = backend->shard_count};
    DL_FOREACH(backend->list, call)
        out->requests += call->wanted;
    for (unsigned i = 0; i < backend->shard_count; i++) {
        size_t pings = backend->pings[i].call != NULL;
        out->shards[i].calls = calls_waiting(backend->calls, i) - pings;
        out->shards[i].answers = backend_shard_answers(backend, i);
    }
}

bool backend_ready(struct backend *backend, char *why, size_t why_bytes)
{
    for (unsigned i = 0; i < backend->shard_count; i++) {
        if (!backend_shard_answers(backend, i)) {
            snprintf(why, why_bytes, "shard %u does not answer", i);
            return false;
        }
    }
    if (!txn_ids_are_recovered(backend->ids)) {
        snprintf(why, why_bytes, "transactions of the last router are in doubt");
        return false;
    }
    return true;
}
