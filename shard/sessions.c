/* shard/sessions.c -- see sessions.h: accepting, what concerns all sessions, and answers by a session's id. What one session
 * does is in session.c. */
#include "sessions.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "confine.h"
#include "kv/log.h"
#include "session.h"

#define ACCEPTS_PER_TURN 16

/* ---- all of them ---------------------------------------------------------------------------------------------- */

void sessions_flush(struct sessions *sessions, uint64_t durable)
{
    for (unsigned i = 0; i < SESSIONS_MAX; i++) {
        struct session *session = sessions->places[i];
        if (session == NULL)
            continue;
        outbox_release(&session->outbox, durable);
        if (session_write(session))
            session_watch(session);
    }
}

void sessions_trim(struct sessions *sessions)
{
    for (unsigned i = 0; i < SESSIONS_MAX; i++) {
        struct session *session = sessions->places[i];
        if (session == NULL)
            continue;
        outbox_trim(&session->outbox);
        if (session->inbox.bytes.bytes == 0)
            kv_buf_free(&session->inbox.bytes);
    }
    outbox_trim(&sessions->nobody);
}

bool sessions_flushed(const struct sessions *sessions)
{
    for (unsigned i = 0; i < SESSIONS_MAX; i++)
        if (sessions->places[i] != NULL && outbox_peek(&sessions->places[i]->outbox).bytes > 0)
            return false;
    return true;
}

/* ---- answers -------------------------------------------------------------------------------------------------- */

static struct session *session_find(struct sessions *sessions, uint64_t id)
{
    struct session *session = sessions->places[id % SESSIONS_MAX];
    return session != NULL && session->id == id ? session : NULL;
}

struct kv_buf *sessions_answer_begin(struct sessions *sessions, uint64_t session_id, enum kv_msg type,
                                     uint64_t request_id, uint64_t position)
{
    kv_assert(sessions->answering == NULL);
    struct session *session = session_find(sessions, session_id);
    sessions->answering = session != NULL ? &session->outbox : &sessions->nobody;
    return outbox_begin(sessions->answering, type, request_id, position);
}

void sessions_answer_end(struct sessions *sessions)
{
    kv_assert(sessions->answering != NULL);
    outbox_end(sessions->answering);
    if (sessions->answering == &sessions->nobody)
        outbox_free(&sessions->nobody); /* whoever asked is gone */
    sessions->answering = NULL;
}

int sessions_take_file(struct sessions *sessions)
{
    int file = sessions->file;
    kv_assert(file >= 0);
    sessions->file = -1;
    return file;
}

uint8_t *sessions_slot(struct sessions *sessions, uint64_t session_id, uint64_t first)
{
    struct session *session = session_find(sessions, session_id);
    return session == NULL || session->slots == NULL ? NULL : slots_at(session->slots, first);
}

void sessions_staging(struct sessions *sessions, uint64_t session_id, uint64_t bytes, bool done)
{
    struct session *session = session_find(sessions, session_id);
    if (session == NULL)
        return;
    kv_assert(!done || session->staging_bytes >= bytes);
    session->staging_bytes = done ? session->staging_bytes - bytes : session->staging_bytes + bytes;
}

/* ---- a beginning ---------------------------------------------------------------------------------------------- */

static unsigned free_place(struct sessions *sessions)
{
    unsigned place = 0;
    while (place < SESSIONS_MAX && sessions->places[place] != NULL)
        place++;
    return place;
}

static void session_new(struct sessions *sessions, int fd)
{
    unsigned place = free_place(sessions);
    if (place == SESSIONS_MAX) {
        kv_warn("connection refused: %u sessions are open", SESSIONS_MAX);
        close(fd);
        return;
    }
    int bytes = SESSION_SOCKET_BYTES; /* above net.core.wmem_max with CAP_NET_ADMIN only */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) != 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    struct session *session = kv_alloc_zero(1, sizeof(*session));
    session->sessions = sessions;
    session->id = ++sessions->id_rounds * SESSIONS_MAX + place;
    session->born_ms = loop_now_ms(sessions->options.loop);
    if (loop_add(sessions->options.loop, &session->watch, fd, EPOLLIN, session_on_ready, session) != KV_OK) {
        kv_warn("connection refused: %m");
        close(fd);
        free(session);
        return;
    }
    sessions->places[place] = session;
    sessions->count++;
}

static void on_connection(void *arg, uint32_t events)
{
    struct sessions *sessions = arg;
    (void)events;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(sessions->options.listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0 && !confine_peer_is_ours(fd)) {
            kv_warn("connection refused: another user's process");
            close(fd);
            continue;
        }
        if (fd >= 0) {
            session_new(sessions, fd);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            kv_warn("cannot accept a connection: %m");
            loop_modify(sessions->options.loop, &sessions->listener, 0); /* sessions_tick tries again */
        }
        return;
    }
}

void sessions_tick(struct sessions *sessions, uint64_t now_ms)
{
    if (!sessions->stopped)
        loop_modify(sessions->options.loop, &sessions->listener, EPOLLIN);
    for (unsigned i = 0; i < SESSIONS_MAX; i++) {
        struct session *session = sessions->places[i];
        if (session != NULL && !session->greeted && now_ms > session->born_ms + SESSION_HELLO_WAIT_MS)
            session_refuse(session, "it did not say HELLO");
    }
}

void sessions_stop(struct sessions *sessions)
{
    sessions->stopped = true;
    loop_remove(sessions->options.loop, &sessions->listener);
}

struct sessions *sessions_new(const struct sessions_options *options)
{
    struct sessions *sessions = kv_alloc_zero(1, sizeof(*sessions));
    sessions->options = *options;
    sessions->epoch = options->epoch;
    sessions->file = -1;
    int flags = fcntl(options->listen_fd, F_GETFL);
    if (flags < 0 || fcntl(options->listen_fd, F_SETFL, flags | O_NONBLOCK) != 0)
        kv_fatal("descriptor %d is not a socket to listen on: %m", options->listen_fd);
    if (loop_add(options->loop, &sessions->listener, options->listen_fd, EPOLLIN, on_connection, sessions) != KV_OK)
        kv_fatal("cannot watch the listening socket: %m");
    return sessions;
}

void sessions_free(struct sessions **sessions)
{
    if (*sessions == NULL)
        return;
    for (unsigned i = 0; i < SESSIONS_MAX; i++) {
        if ((*sessions)->places[i] == NULL)
            continue;
        (*sessions)->places[i]->greeted = false; /* without a word */
        session_close((*sessions)->places[i]);
    }
    loop_remove((*sessions)->options.loop, &(*sessions)->listener);
    outbox_free(&(*sessions)->nobody);
    free(*sessions);
    *sessions = NULL;
}

unsigned sessions_count(const struct sessions *sessions)
{
    return sessions->count;
}

void sessions_load(const struct sessions *sessions, struct sessions_load *out)
{
    *out = (struct sessions_load){0};
    for (unsigned i = 0; i < SESSIONS_MAX; i++) {
        const struct session *session = sessions->places[i];
        if (session == NULL)
            continue;
        out->paused += session->paused;
        out->input_bytes += session->inbox.bytes.bytes;
        out->output_bytes += outbox_bytes(&session->outbox);
    }
}

uint64_t sessions_epoch(const struct sessions *sessions)
{
    return sessions->epoch;
}
