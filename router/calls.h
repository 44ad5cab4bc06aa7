/* router/calls.h -- requests from one router thread to the shards, and their answers: pure code, no sockets.
 * Does:     numbers requests, keeps them until they are answered, writes them as frames into one output buffer per shard
 *           (many requests, one system call), matches answers, writes unanswered requests again after a link came back.
 * Owns:     the table of calls. Bodies are not kept: `write_body` makes them again when needed.
 * Promises: on_answer runs at most once, exactly once unless cancelled, and only from calls_input. Calls that were never sent
 *           leave in the order of calls_send; after calls_link_up the unanswered ones leave first, in their old order.
 *           Request ids are never reused (a late answer finds nobody).
 * Fails:    a frame that breaks the protocol, or an answer of the wrong type: KV_INVALID, the rim closes that link.
 *           There are no timeouts here: the backend has them, and cancels.
 * Tests:    unit/router/test_calls.c, sim/. */
#ifndef KV_ROUTER_CALLS_H
#define KV_ROUTER_CALLS_H

#include "body_file.h"
#include "kv/buf.h"
#include "kv/err.h"
#include "kv/msg.h"

#ifndef CALLS_WAITING_MAX        /* the simulation lowers it */
#define CALLS_WAITING_MAX 65536u /* unanswered requests per shard and thread: beyond it calls_send refuses */
#endif

#define CALLS_OUTPUT_BYTES 65536u /* frames that make a system call worth while */

struct calls;
struct call;

/* May call calls_attach. */
typedef void (*call_write_body)(void *arg, struct kv_buf *buf);
/* `body` is a peek. The answer's type is the one that kv/msg.h names for the request. */
typedef void (*call_on_answer)(void *arg, struct kv_slice body);

struct calls_world {
    void *ctx;
    /* There is output for this shard where there was none: write calls_output soon (at the end of the turn). */
    void (*wake)(void *ctx, unsigned shard_index);
    /* CALLS_OUTPUT_BYTES or more wait: write them now, so that the shard works while the turn goes on. May be NULL. */
    void (*full)(void *ctx, unsigned shard_index);
};

struct calls *calls_new(unsigned shard_count, const struct calls_world *world);
void calls_free(struct calls **calls);

/* NULL when CALLS_WAITING_MAX is reached (refuse with KV_OVERLOADED). `force` never refuses: for messages of transactions under
 * way. `arg` must live until the answer or the cancel. */
struct call *calls_send(struct calls *calls, unsigned shard_index, enum kv_msg type, bool force,
                        call_write_body write_body, call_on_answer on_answer, void *arg);
/* A message without an answer (CLOSE, STAGE_DROP, ARENA): written if the link is up, dropped if not. */
void calls_tell(struct calls *calls, unsigned shard_index, enum kv_msg type, call_write_body write_body, void *arg);
/* The answer is not wanted any more; `call` is gone afterwards. NULL is accepted. */
void calls_cancel(struct calls *calls, struct call *call);
/* Somebody else waits for the answer from now on. */
void calls_hand_over(struct call *call, call_write_body write_body, call_on_answer on_answer, void *arg);

/* The rim: a link has shaken hands / is gone (what calls_output holds is thrown away). */
void calls_link_up(struct calls *calls, unsigned shard_index);
void calls_link_down(struct calls *calls, unsigned shard_index);
bool calls_link_is_up(const struct calls *calls, unsigned shard_index);
/* Counts calls_link_up: what a shard said on an earlier link (ids of staged contents) means nothing on a later one. */
uint64_t calls_link_generation(const struct calls *calls, unsigned shard_index);
/* From within a write_body: the file's descriptor leaves with the frame (SCM_RIGHTS). Held until then, or until the link is lost. */
void calls_attach(struct calls *calls, unsigned shard_index, struct body_file *file);
/* What the rim may send in one message; *fd >= 0 must go along with the first byte. Empty: nothing waits. */
struct kv_slice calls_next_output(struct calls *calls, unsigned shard_index, int *fd);
/* So many bytes of it, at least one, have left. */
void calls_sent(struct calls *calls, unsigned shard_index, size_t bytes);
/* All frames that wait, for those who attach nothing: consumed by them. */
struct kv_buf *calls_output(struct calls *calls, unsigned shard_index);
/* Received bytes: consumes whole frames, `used` says how many bytes. Answers to cancelled calls are skipped. */
enum kv_err calls_input(struct calls *calls, unsigned shard_index, struct kv_slice bytes, size_t *used);
/* Unanswered requests of one shard. */
size_t calls_waiting(const struct calls *calls, unsigned shard_index);

#endif
