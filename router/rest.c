/* router/rest.c -- see rest.h. */
#include "rest.h"

#include "body_file.h"
#include "kv/clock.h"
#include "thread.h"

bool rest_wait(pthread_cond_t *changed, pthread_mutex_t *lock, bool *worked)
{
    if (!*worked) {
        pthread_cond_wait(changed, lock);
        return false;
    }
    bool is_over = !kv_clock_wait(changed, lock, kv_clock_ns() + (uint64_t)REST_MS * 1000000);
    if (is_over)
        *worked = false;
    return is_over;
}

static void give_back(struct router_thread *thread)
{
    codec_trim(thread->codec);
    backend_trim(thread->backend);
    body_files_trim();
    kv_trim();
}

static void on_look(h2o_timeout_entry_t *entry)
{
    struct router_thread *thread = H2O_STRUCT_FROM_MEMBER(struct router_thread, rest.entry, entry);
    bool quiet = thread->requests - thread->rest.requests < REST_REQUESTS;
    thread->rest.requests = thread->requests;
    cache_sweep(thread->cache);
    bool freed = frames_sweep(thread->frames); /* minutes after the load, perhaps */
    if (quiet && (thread->rest.due || freed))
        give_back(thread);
    thread->rest.due = quiet ? thread->rest.due / 2 : 2;
    h2o_timeout_link(thread->context.loop, &thread->rest.timeout, entry);
}

void rest_start(struct router_thread *thread)
{
    thread->rest.entry.cb = on_look;
    h2o_timeout_init(thread->context.loop, &thread->rest.timeout, REST_MS);
    h2o_timeout_link(thread->context.loop, &thread->rest.timeout, &thread->rest.entry);
}
