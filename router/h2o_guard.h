/* router/h2o_guard.h -- stands between strangers and the known holes of libh2o 2.2.5.
 * Does:     h2o_guard.c        takes the place of some functions of the library, so that no sequence of frames aborts the process,
 *                              makes a loop spin, floods standard error or turns a small header block into much memory;
 *           h2o_guard_head.c   looks at each HTTP/1 head before the library does: what is ambiguous, or would be refused in the
 *                              library's words, becomes a request without a body that carries its refusal;
 *           h2o_guard_chunk.c  decodes chunked bodies of HTTP/1, to the letter;
 *           h2o_guard_door.c   budgets: connections and open requests of an address, cancelled requests of a connection and of an
 *                              address;
 *           h2o_guard_room.c   budgets: contents in memory that clients of an address have not taken yet, and cancelled requests
 *                              that the shards are still at; more requests wait;
 *           h2o_guard_pause.c  stops reading from a connection for a while;
 *           h2o_guard_sweep.c  every SWEEP_MS looks at all requests of a loop and cuts the connections of those that take
 *                              too long to send headers or a body, or to read a small answer (larger ones: http_watch).
 * Promises: a connection is never closed under the library's feet: its descriptor is shut down, the library sees the end and
 *           disposes of it. Whoever is cut is counted by reason (metrics.h).
 * Fails:    h2o_guard_check refuses to start before another library than 2.2.5, or when the library's calls do not arrive here.
 * Tests:    http/test_http_guard.c (each attack with and without the guard), http/test_http_budgets.c. */
#ifndef KV_ROUTER_H2O_GUARD_H
#define KV_ROUTER_H2O_GUARD_H

#include <h2o.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "auth.h"
#include "kv/err.h"
#include "metrics.h"

#define H2O_GUARD_VERSION "2.2.5"        /* what every line of the guard was checked against */
#define H2O_GUARD_FIELDS_MAX 256u        /* of one HTTP/2 header block; HTTP_HEADERS_MAX already gets a 431 */
#define H2O_GUARD_WINDOW_S 10            /* CANCELS_MAX and AUTH_FAILURES_MAX are for so long */
#define H2O_GUARD_ADDRESS_CANCELS 10     /* times CANCELS_MAX, for all connections of an address together */
#define H2O_GUARD_BLOCK_BYTES_FREE 4096u /* header blocks up to this are not counted for their address */
#define H2O_GUARD_IDLE_MS 5000u      /* so long a connection may be without a request when others wait for its place */
#define H2O_GUARD_ROOM 64u           /* connections ended at once to make room */
#define H2O_GUARD_SMALL_BYTES 16384u /* an answer up to this is taken within CLIENT_WAIT_MS as a whole */
#define H2O_GUARD_ABANDONED_MS 2000u /* a shard that takes longer hangs: no reason to let the address wait for it */

struct router_thread;
struct kv_settings;

/* ---- the library -------------------------------------------------------------------------------------------------- */

/* Once, before any loop runs. KV_INVALID: `why` is one sentence. */
enum kv_err h2o_guard_check(char *why, size_t why_bytes);
/* Its parts, for tests: does the library that calls itself `name` ("h2o/2.2.5") have the version, and do calls of the library
 * to `symbol` arrive at `ours`. */
bool h2o_guard_knows(const char *name, size_t bytes);
bool h2o_guard_catches(const char *symbol, const void *ours);
/* On a loop's own thread, once. */
void h2o_guard_thread_init(struct router_thread *thread);

/* ---- connections -------------------------------------------------------------------------------------------------- */

/* Cancelled requests of an address that the shards of a thread are still at. */
struct guard_abandoned {
    atomic_uint calls;      /* changed by that thread */
    uint64_t many_since_ms; /* of the loop's clock: ABANDONED_PER_ADDRESS_MAX was reached */
};

/* One per connection, at its socket's on_close.data. What the sweep remembers from one round to the next is below. */
struct guarded {
    struct router_thread *thread;
    h2o_socket_t *socket;
    struct guard_address *address;
    atomic_size_t *held;               /* bytes of all shares of the address */
    struct guard_abandoned *abandoned; /* of the address, on this thread */
    size_t in_flight;                  /* requests that a handler has */
    uint64_t idle_since_ms;            /* of the loop's clock: its begin, or the end of its last request */
    size_t streams; /* HTTP/2 requests from their first byte to their last; a request that upgraded is left out */
    bool cut;
    double cancels_left; /* a bucket that fills up again */
    uint64_t cancels_at_ms;
    enum guard_phase { GUARD_QUIET, GUARD_IDLE, GUARD_HEADERS, GUARD_BODY } phase, phase_now;
    uint64_t bytes, bytes_now; /* received in that phase, of all requests */
    h2o_req_t *h1_now;         /* the HTTP/1 request that is arriving, during a round */
    h2o_socket_cb h1_read;     /* libh2o's, while a 408 or 503 is on its way */
    struct {
        unsigned asked;             /* for so many reasons */
        h2o_socket_cb read;         /* libh2o's, while it is in effect */
        h2o_timeout_entry_t settle; /* linked: to begin or to end at the end of this turn */
    } pause;
    uint64_t since_ms; /* when the phase began, or bytes were last seen to grow as BODY_RATE_MIN asks */
    struct guarded *prev, *next;
    struct auth_seen seen;       /* admit.c's */
    struct guard_share *waiting; /* utlist */
    struct guarded *crowded_prev, *crowded_next;
};

struct guard_door; /* what all threads know of addresses */
struct guard_door *h2o_guard_door_new(const struct kv_settings *settings);
/* NULL: the address has CONNECTIONS_PER_ADDRESS_MAX already. Sets the socket's on_close.data, not its callback. */
struct guarded *h2o_guard_enter(struct router_thread *thread, h2o_socket_t *socket);
/* Nobody more can be accepted: ends some connections that have been without a request for H2O_GUARD_IDLE_MS, of the address that has
 * most connections. */
void h2o_guard_make_room(struct router_thread *thread);
/* From the socket's on_close. */
void h2o_guard_leave(struct guarded **guarded);
/* NULL only for a connection that is just changing from HTTP/1 to HTTP/2. */
struct guarded *h2o_guard_of(h2o_req_t *req);
/* Whether a buffer of this thread is what a client's socket is read into, before TLS. Walks all connections. */
bool h2o_guard_is_input(h2o_buffer_t **inbuf);
/* Ends a connection from anywhere on its thread. `reason` is counted, once. */
void h2o_guard_cut(struct guarded *guarded, enum metrics_counter reason);

/* From the end of this turn of the loop on nothing is read from the connection, until h2o_guard_read_on was called as often.
 * What was read before, the library still handles. Who has to wait for too long is cut by the sweep. */
void h2o_guard_pause(struct guarded *guarded);
void h2o_guard_read_on(struct guarded *guarded);

/* ---- requests ----------------------------------------------------------------------------------------------------- */

/* A handler gets it. False: its connection is being cut, answer 503 and do nothing. */
bool h2o_guard_begin(h2o_req_t *req);
/* h2o disposes of it. Charges the budgets when an HTTP/2 stream died before its answer was complete. */
void h2o_guard_end(h2o_req_t *req);
/* A request without a valid token: is its address still within AUTH_FAILURES_MAX? */
bool h2o_guard_may_fail(h2o_req_t *req);
/* From the library's own functions: an HTTP/2 request begins or ends. `cancelled`: it never reached a handler. */
void h2o_guard_stream_opened(struct guarded *guarded);
void h2o_guard_stream_closed(struct guarded *guarded, bool cancelled);
/* Charges a large header block to its address until the request ends. False: HEADER_BYTES_PER_ADDRESS_MAX, the connection is cut. */
bool h2o_guard_headers_taken(struct guarded *guarded, h2o_req_t *req, size_t bytes);
/* Names and values of a request's headers exceed HEADER_BYTES_MAX. */
bool h2o_guard_headers_too_large(const h2o_req_t *req, uint64_t bytes_max);

/* ---- room for answers --------------------------------------------------------------------------------------------- */

/* What a request may take of memory for its answer. Zero-initialised: nothing. */
struct guard_share {
    struct guarded *guarded; /* NULL: nothing is held, nobody waits */
    size_t bytes;
    void (*on_room)(struct guard_share *share); /* while it waits */
    struct guard_share *prev, *next;
};

/* Calls on_room when there is room for `bytes`: at once, or later from the loop. */
void h2o_guard_share_take(struct guard_share *share, h2o_req_t *req, size_t bytes,
                          void (*on_room)(struct guard_share *share));
/* It turned out to be less, or more. False: there is no room for that, all of the share is given back, and on_room is called when
 * there is; it waits in front of those that came later. */
bool h2o_guard_share_change(struct guard_share *share, size_t bytes, void (*on_room)(struct guard_share *share));
/* Held, waiting or neither. */
void h2o_guard_share_end(struct guard_share *share);
/* A request dies while the shards work for it. What is returned is for h2o_guard_abandoned_over, once they are through. */
void *h2o_guard_abandoned(h2o_req_t *req);
void h2o_guard_abandoned_over(void *abandoned);
/* Every now and then: room may have come from another thread. */
void h2o_guard_share_look(struct router_thread *thread);
void h2o_guard_room_start(struct router_thread *thread);

/* Why a request must not be served, found in its head. */
struct guard_refusal {
    int status; /* 0: nothing but that its body will not come */
    const char *code;
    const char *sentence;
    bool unread; /* there is no request behind it, and no token */
};
/* Of the request that a handler is being called for, or NULL. Once per request; its HTTP/1 connection must end with it. */
const struct guard_refusal *h2o_guard_refusal(const h2o_req_t *req);

/* All that belongs to the HTTP/1 request whose complete head `buf` begins with, its body too; SIZE_MAX when that does not tell, and
 * `head_bytes` is as it was. */
size_t h2o_guard_h1_bytes(const char *buf, size_t len, size_t *head_bytes);

void h2o_guard_sweep_start(struct router_thread *thread);

#ifdef KV_TESTS
/* The library as it came, from here on: shows what an attack does without the guard. */
void h2o_guard_disable(void);
#endif
bool h2o_guard_is_on(void);

#endif
