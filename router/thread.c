/* router/thread.c -- see thread.h. */
#include "thread.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "body.h"
#include "gauges.h"
#include "http.h"
#include "kv/clock.h"
#include "kv/log.h"
#include "metrics.h"
#include "random.h"
#include "rest.h"
#include "task.h"
#include "work.h"

/* What another thread wants of this one: a drain, or with `tokens` other tokens and another certificate. */
struct control_message {
    h2o_multithread_message_t message;
    struct tokens *tokens; /* references of its own */
    SSL_CTX *tls;
    uint64_t wait_ms;
};

/* ---- drain -------------------------------------------------------------------------------------------------------- */

static void on_tick(h2o_timeout_entry_t *entry)
{
    (void)entry; /* the loop turned: that is all that was wanted */
}

static void use(struct router_thread *thread, struct control_message *control)
{
    tokens_release(&thread->tokens);
    thread->tokens = control->tokens;
    if (control->tls != NULL)
        listeners_use_tls(&thread->listeners, control->tls);
}

static void on_control(h2o_multithread_receiver_t *receiver, h2o_linklist_t *messages)
{
    struct router_thread *thread = H2O_STRUCT_FROM_MEMBER(struct router_thread, control, receiver);
    while (!h2o_linklist_is_empty(messages)) {
        struct control_message *control = H2O_STRUCT_FROM_MEMBER(struct control_message, message.link, messages->next);
        h2o_linklist_unlink(&control->message.link);
        if (control->tokens != NULL) {
            use(thread, control);
        } else {
            thread->drain.asked = true;
            thread->drain.asked_at = *h2o_get_timestamp(&thread->context, NULL, NULL);
            thread->drain.announce_by_ms = kv_clock_ms() + control->wait_ms / 2;
        }
        free(control);
    }
}

static int count_request(h2o_req_t *req, void *arg)
{
    (void)req;
    ++*(size_t *)arg;
    return 0;
}

/* HTTP/2 requests whose body is still arriving: h2o drops them one second after it said GOAWAY. */
static bool has_uploads(struct router_thread *thread)
{
    size_t requests = 0;
    thread->server->config.http2.callbacks.foreach_request(&thread->context, count_request, &requests);
    return requests > thread->exchanges_h2;
}

/* version is 0 until the headers of a request are complete. */
static int cut_if_idle(h2o_req_t *req, void *arg)
{
    (void)arg;
    if (req->version == 0)
        shutdown(h2o_socket_get_fd(req->conn->callbacks->get_socket(req->conn)), SHUT_RDWR);
    return 0;
}

/* One step per turn of the loop, outside of every callback. True: through. */
static bool drain_step(struct router_thread *thread)
{
    listeners_close(&thread->listeners);
    if (!thread->drain.announced && (!has_uploads(thread) || kv_clock_ms() >= thread->drain.announce_by_ms)) {
        h2o_context_request_shutdown(&thread->context);
        thread->drain.announced = true;
    }
    if (thread->drain.announced)
        thread->server->config.http1.callbacks.foreach_request(&thread->context, cut_if_idle, NULL);
    if (thread->listeners.connections == 0 && backend_pending(thread->backend) == 0)
        return true;
    if (!h2o_timeout_is_linked(&thread->drain.tick))
        h2o_timeout_link(thread->context.loop, &thread->context.hundred_ms_timeout, &thread->drain.tick);
    return false;
}

/* ---- life --------------------------------------------------------------------------------------------------------- */

static void set_up(struct router_thread *thread)
{
    struct server *server = thread->server;
    h2o_context_init(&thread->context, h2o_evloop_create(), &server->config);
    body_thread_init(&thread->context, http_may_send, server->work, &thread->worked);
    h2o_multithread_register_receiver(thread->context.queue, &thread->control, on_control);
    h2o_multithread_register_receiver(thread->context.queue, &thread->worked, work_on_messages);
    h2o_multithread_register_receiver(thread->context.queue, &thread->tasked, task_on_messages);
    thread->metrics = metrics_of_thread(server->metrics, thread->index);
    h2o_timeout_init(thread->context.loop, &thread->client_wait, server->settings->client_wait_ms);
    thread->drain.tick.cb = on_tick;
    thread->codec = codec_new((int)server->settings->compression_level);
    thread->backend = backend_new(server->settings, &thread->context, server->sockets_fd, thread->index);
    backend_use_marks(thread->backend, server->marks);
    uint64_t cache_bytes = server->settings->cache_bytes / server->thread_count;
    thread->cache = cache_new(CACHE_SHARE(cache_bytes), server->marks);
    thread->frames = frames_new(cache_bytes - CACHE_SHARE(cache_bytes));
    gets_init(&thread->gets);
    thread->random = random_seed();
    gauges_start(thread);
    rest_start(thread);
    h2o_guard_thread_init(thread);
    listeners_open(&thread->listeners, thread);
}

static void *thread_main(void *arg)
{
    struct router_thread *thread = arg;
    char name[16];
    snprintf(name, sizeof(name), "kv-loop-%u", thread->index);
    pthread_setname_np(pthread_self(), name);
    set_up(thread);
    h2o_evloop_run(thread->context.loop, 0);
    sem_post(&thread->serving);
    do /* h2o_evloop_run fails with EINTR only: its answer says nothing */
        h2o_evloop_run(thread->context.loop, INT32_MAX);
    while (!thread->drain.asked || !drain_step(thread));
    sem_post(&thread->drained);
    for (;;) /* h2o's context cannot be taken down cleanly; the process ends by _exit */
        pause();
    return NULL;
}

void thread_start(struct router_thread *thread, struct server *server, unsigned index)
{
    thread->server = server;
    thread->index = index;
    thread->tokens = tokens_hold(server->tokens);
    sem_init(&thread->serving, 0, 0);
    sem_init(&thread->drained, 0, 0);
    int failure = pthread_create(&thread->id, NULL, thread_main, thread);
    if (failure != 0)
        kv_fatal("cannot start router thread %u: %s", index, strerror(failure));
}

void thread_wait_serving(struct router_thread *thread)
{
    while (sem_wait(&thread->serving) != 0)
        kv_assert(errno == EINTR);
}

void thread_drain(struct router_thread *thread, uint64_t wait_ms)
{
    struct control_message *message = kv_alloc_zero(1, sizeof(*message));
    message->wait_ms = wait_ms;
    h2o_multithread_send_message(&thread->control, &message->message);
}

void thread_use(struct router_thread *thread, struct tokens *tokens, SSL_CTX *tls)
{
    struct control_message *message = kv_alloc_zero(1, sizeof(*message));
    if (tls != NULL)
        SSL_CTX_up_ref(tls);
    message->tls = tls;
    message->tokens = tokens_hold(tokens);
    h2o_multithread_send_message(&thread->control, &message->message);
}

bool thread_wait_drained(struct router_thread *thread, uint64_t deadline_ms)
{
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ms / 1000),
                                .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    while (sem_clockwait(&thread->drained, CLOCK_MONOTONIC, &deadline) != 0)
        if (errno != EINTR)
            return false;
    return true;
}
