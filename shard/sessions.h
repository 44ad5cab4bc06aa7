/* shard/sessions.h -- the connections of router threads: HELLO, epochs, frames in, answers out.
 * Does:     accepts, reads, cuts into frames, hands requests to the handler; fences routers of an older epoch; holds answers
 *           until the journal has what they rest on (outbox.h); writes each session's answers of a turn together.
 * Owns:     the listening socket's watch, the connections, their buffers. A session id is never reused and never 0.
 * Promises: the first message of a session is HELLO. A HELLO closes every session of an older epoch, and the last one of
 *           the same router thread, with all that was not read from it, before it is answered; a HELLO with an older
 *           epoch is answered with the newer and closed.
 * Limits:   below. A session with too much waiting (answers, staged content) is not read from until half of it is gone.
 * Fails:    a peer that breaks the protocol is closed and logged.
 * Tests:    unit/shard/test_sessions.c, unit/shard/test_serve.c. */
#ifndef KV_SHARD_SESSIONS_H
#define KV_SHARD_SESSIONS_H

#include "kv/buf.h"
#include "kv/err.h"
#include "kv/msg.h"

#define SESSIONS_MAX 256u                              /* more are closed at once: 64 threads need 64 */
#define SESSION_READ_BYTES (1024u * 1024)              /* read from one session in one turn */
#define SESSION_WRITE_BYTES (128u * 1024)              /* answers that do not wait for the end of the turn */
#define SESSION_OUTPUT_BYTES_MAX ((size_t)64 << 20)    /* answers waiting: beyond it nothing is read */
#define SESSION_STAGING_BYTES_MAX ((uint64_t)64 << 20) /* staged content waiting for the disk: as above */
#define SESSION_SOCKET_BYTES (1024 * 1024)             /* SO_SNDBUF asked for */
#define SESSION_HELLO_WAIT_MS 10000u                   /* connected and silent: closed */

struct loop;
struct sessions;

struct sessions_options {
    struct loop *loop;
    int listen_fd; /* made non-blocking; stays the caller's */
    unsigned shard_index;
    unsigned shard_count;
    uint64_t epoch; /* the newest that is known already: older routers are refused */
    void *ctx;
    /* What a session has sent: whole frames, perhaps with a part of one behind. on_message follows for those that are handled now. */
    void (*on_input)(void *ctx, struct kv_slice frames);
    /* A request of a session that has greeted. Anything but KV_OK closes the session (and calls on_closed). */
    enum kv_err (*on_message)(void *ctx, uint64_t session, enum kv_msg type, uint64_t request_id, struct kv_slice body);
    /* A session that had greeted is gone. */
    void (*on_closed)(void *ctx, uint64_t session);
};

struct sessions *sessions_new(const struct sessions_options *options);
/* Closes all without a word. */
void sessions_free(struct sessions **sessions);

/* As core_world.answer_begin and answer_end. */
struct kv_buf *sessions_answer_begin(struct sessions *sessions, uint64_t session, enum kv_msg type, uint64_t request_id,
                                     uint64_t position);
void sessions_answer_end(struct sessions *sessions);
/* The descriptor that came with the KV_MSG_STAGE_FILE under way: the caller's to close. Within on_message only. */
int sessions_take_file(struct sessions *sessions);
/* Of the arena that this session's router gave, from this unit on; NULL: it gave none. */
uint8_t *sessions_slot(struct sessions *sessions, uint64_t session, uint64_t first);
/* Staged content of this session, in memory, went to (or, `done`, came back from) the applier. */
void sessions_staging(struct sessions *sessions, uint64_t session, uint64_t bytes, bool done);

/* End of a turn: writes what may leave now that records up to `durable` are on disk. */
void sessions_flush(struct sessions *sessions, uint64_t durable);
/* About every 100 ms: closes the silent, accepts again after a shortage of descriptors. */
void sessions_tick(struct sessions *sessions, uint64_t now_ms);
/* From now on nothing is accepted or read; answers still leave. */
void sessions_stop(struct sessions *sessions);
/* Gives back buffers in which nothing waits. */
void sessions_trim(struct sessions *sessions);
/* Whether every answer that may leave has left. */
bool sessions_flushed(const struct sessions *sessions);

unsigned sessions_count(const struct sessions *sessions);
/* What waits where, of all sessions together. */
struct sessions_load {
    uint64_t paused;       /* not read from until half of what waits for them is gone */
    uint64_t input_bytes;  /* read and not yet handled */
    uint64_t output_bytes; /* answers that have not left */
};
void sessions_load(const struct sessions *sessions, struct sessions_load *out);
uint64_t sessions_epoch(const struct sessions *sessions); /* the newest known */

#endif
