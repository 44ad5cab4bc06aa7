/* router/listen.c -- see listen.h. */
#include "listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "h2o_guard.h"
#include "kv/log.h"
#include "metrics.h"
#include "thread.h"

enum {
    ACCEPTS_PER_TURN = 16,
    RECEIVE_BUFFER_BYTES = 256 * 1024, /* h2o reads a socket empty before it turns to others: keep it short */
    SEND_BUFFER_BYTES = 1024 * 1024,   /* few partial writes, which h2o's bug #1951 needs */
    UNSENT_BYTES = 256 * 1024, /* of it, what the client's window has no room for: a slow reader keeps no more */
};

static void on_accept(h2o_socket_t *socket, const char *err);

static void each_listener(struct listeners *listeners, void (*act)(h2o_socket_t *socket))
{
    if (listeners->plain.socket != NULL)
        act(listeners->plain.socket);
    if (listeners->tls.socket != NULL)
        act(listeners->tls.socket);
}

static void start(h2o_socket_t *socket)
{
    h2o_socket_read_start(socket, on_accept);
}

static void pause_all(struct listeners *listeners)
{
    listeners->paused = true;
    metrics_add(listeners->thread->metrics, METRICS_ACCEPT_PAUSES, 1);
    each_listener(listeners, h2o_socket_read_stop);
}

static void resume_all(struct listeners *listeners)
{
    if (!listeners->paused || listeners->connections >= listeners->thread->server->connections_max)
        return;
    listeners->paused = false;
    each_listener(listeners, start);
}

static void look_again_soon(struct listeners *listeners)
{
    if (!h2o_timeout_is_linked(&listeners->resume))
        h2o_timeout_link(listeners->thread->context.loop, &listeners->thread->context.hundred_ms_timeout,
                         &listeners->resume);
}

/* Still at the brim, and others may be waiting: idle connections give their places away. */
static void on_resume(h2o_timeout_entry_t *entry)
{
    struct listeners *listeners = H2O_STRUCT_FROM_MEMBER(struct listeners, resume, entry);
    bool closed = listeners->plain.socket == NULL && listeners->tls.socket == NULL;
    resume_all(listeners);
    if (!listeners->paused || closed)
        return;
    h2o_guard_make_room(listeners->thread);
    look_again_soon(listeners);
}

static void on_connection_closed(void *arg)
{
    struct guarded *guarded = arg;
    struct listeners *listeners = &guarded->thread->listeners;
    h2o_guard_leave(&guarded);
    kv_assert(listeners->connections > 0);
    metrics_set(listeners->thread->metrics, METRICS_GAUGE_CONNECTIONS, --listeners->connections);
    resume_all(listeners);
}

/* Out of descriptors or memory: the socket stays readable, so accepting again at once would spin. */
static void pause_for_want(struct listeners *listeners, int reason)
{
    kv_warn("no connection can be accepted for 100 ms: %s", strerror(reason));
    pause_all(listeners);
    look_again_soon(listeners);
}

static void on_accept(h2o_socket_t *socket, const char *err)
{
    struct listener *listener = socket->data;
    struct listeners *listeners = listener->all;
    if (err != NULL)
        return;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        if (listeners->connections >= listeners->thread->server->connections_max) {
            pause_all(listeners);
            look_again_soon(listeners);
            return;
        }
        h2o_socket_t *connection = h2o_evloop_socket_accept(socket);
        if (connection == NULL) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                pause_for_want(listeners, errno);
            return;
        }
        if (h2o_guard_enter(listeners->thread, connection) == NULL) {
            h2o_socket_close(connection);
            continue;
        }
        metrics_add(listeners->thread->metrics, METRICS_CONNECTIONS_ACCEPTED, 1);
        metrics_set(listeners->thread->metrics, METRICS_GAUGE_CONNECTIONS, ++listeners->connections);
        connection->on_close.cb = on_connection_closed;
        h2o_accept(&listener->accept, connection);
    }
}

/* Options of the listening socket are inherited by what it accepts: no system calls per connection. What the kernel does
 * not grant it clips: not an error. */
void listeners_set_options(int fd, uint64_t client_wait_ms)
{
    int send_bytes = SEND_BUFFER_BYTES;
    int receive_bytes = RECEIVE_BUFFER_BYTES;
    int unsent_bytes = UNSENT_BYTES;
    unsigned wait_ms = (unsigned)client_wait_ms;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof(send_bytes));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &send_bytes, sizeof(send_bytes));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_bytes, sizeof(unsent_bytes));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &wait_ms, sizeof(wait_ms));
}

void listeners_use_tls(struct listeners *listeners, SSL_CTX *tls)
{
    SSL_CTX_free(listeners->tls.accept.ssl_ctx);
    listeners->tls.accept.ssl_ctx = tls;
}

static void open_one(struct listeners *listeners, struct listener *listener, int fd, SSL_CTX *tls)
{
    struct router_thread *thread = listeners->thread;
    if (fd < 0)
        return;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0 || fcntl(own, F_SETFL, O_NONBLOCK) != 0)
        kv_fatal("cannot duplicate a listening socket: %s", strerror(errno));
    listener->all = listeners;
    listener->accept =
        (h2o_accept_ctx_t){.ctx = &thread->context, .hosts = thread->server->config.hosts, .ssl_ctx = tls};
    if (tls != NULL)
        SSL_CTX_up_ref(tls);
    listener->socket = h2o_evloop_socket_create(thread->context.loop, own, H2O_SOCKET_FLAG_DONT_READ);
    listener->socket->data = listener;
    start(listener->socket);
}

void listeners_open(struct listeners *listeners, struct router_thread *thread)
{
    *listeners = (struct listeners){.thread = thread, .resume = {.cb = on_resume}};
    open_one(listeners, &listeners->plain, thread->server->plain_fd, NULL);
    open_one(listeners, &listeners->tls, thread->server->tls_fd, thread->server->tls);
}

static void close_one(struct listener *listener)
{
    if (listener->socket != NULL)
        h2o_socket_close(listener->socket);
    listener->socket = NULL;
}

void listeners_close(struct listeners *listeners)
{
    if (listeners->plain.socket == NULL && listeners->tls.socket == NULL)
        return;
    pause_all(listeners);
    /* the loop must forget them before they are closed; what was accepted meanwhile is served */
    h2o_evloop_run(listeners->thread->context.loop, 0);
    close_one(&listeners->plain);
    close_one(&listeners->tls);
}
