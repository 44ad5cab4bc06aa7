/* shard/session.h -- one connection of a router's thread, from HELLO to its end; sessions.c has all of them.
 * Does:     reads, cuts into frames, hands requests to the handler, writes answers. A session is read in its watch's
 *           callback and written at the end of the turn; whatever stops it from being read (its output, its staged content)
 *           is looked at before each frame, since one read may hold thousands of small requests for a mebibyte each.
 * Owns:     the structures of both files; nobody else sees them. Promises, limits, faults: sessions.h.
 * Tests:    unit/shard/test_sessions.c. */
#ifndef KV_SHARD_SESSION_H
#define KV_SHARD_SESSION_H

#include "inbox.h"
#include "loop.h"
#include "outbox.h"
#include "sessions.h"
#include "slots.h"

struct session {
    struct sessions *sessions;
    struct loop_watch watch;
    uint64_t id;
    uint64_t epoch;
    uint64_t thread_index; /* of the router */
    uint64_t born_ms;
    bool greeted;
    bool leaving; /* closed once its last answer was offered to the socket */
    bool paused;  /* congested: not read from until half of what waits is gone */
    struct inbox inbox;
    struct outbox outbox;
    uint8_t *slots; /* its router's arena; NULL: it gave none */
    uint64_t staging_bytes;
};

struct sessions {
    struct sessions_options options;
    struct loop_watch listener;
    bool stopped;
    uint64_t epoch;
    uint64_t id_rounds; /* session ids: rounds * SESSIONS_MAX + place */
    unsigned count;
    struct session *places[SESSIONS_MAX];
    struct outbox *answering; /* the outbox between answer_begin and answer_end */
    int file;                 /* of the message under way, -1: none, or taken */
    struct outbox nobody;     /* answers to sessions that are gone */
};

/* `arg` is the session, a connection that was accepted: read from now on, once it is in its place. */
void session_on_ready(void *arg, uint32_t events);
/* False: the session is closed. A peer that is gone is only hung up on: it is closed in the next turn's callbacks, since closing
 * may wake other sessions' requests, and at the end of a turn nobody would look after them. */
bool session_write(struct session *session);
/* EPOLLIN unless paused, leaving or stopped. EPOLLOUT while bytes wait for the socket, and to be called once more when a pause
 * is over: what was read before it still waits in the input. */
void session_watch(struct session *session);
/* Frees it; the handler hears of it when it had greeted. */
void session_close(struct session *session);
/* The same, with a line in the log. */
void session_refuse(struct session *session, const char *why);

#endif
