/* router/body.h -- where request bodies wait until they are complete.
 * Does:     takes the place of libh2o's growing buffers for what clients send. A body stays in memory while it is small
 *           (BODY_MEMORY_BYTES_MAX, less when many wait), then moves to an unlinked file (body_file.h), whose pages leave the
 *           process as soon as they were written; a body that will not be stored anyway (no token, too large, no room) is
 *           read to its end and forgotten, so that the client gets an answer and nothing fills up.
 * Why:      libh2o 2.2.5 keeps every body whole before it calls a handler, up to 16 MiB of it in memory and the rest in a file
 *           that stays mapped, for anybody and without a sum.
 * How:      h2o_buffer_reserve and h2o_buffer__do_free of the same name in this program win over the library's, which calls
 *           them through its linkage table; body_init checks that they do.
 * Owns:     the sum of what is in memory; mappings are body_map.h's, files body_file.h's.
 * Limits:   files together UPLOAD_BYTES_MAX: beyond it bodies end with KV_OVERLOADED, new ones from three quarters of it on, so
 *           that those under way can end. Memory together BODY_MEMORY_SUM_MAX: beyond it connections are cut.
 * Also:     a client that sends without a pause gets a part of each turn only: turn.h.
 * Tests:    http/test_http_bodies.c, system/test_large.c. */
#ifndef KV_ROUTER_BODY_H
#define KV_ROUTER_BODY_H

#include <h2o.h>

#include "body_file.h"
#include "body_job.h"
#include "kv/err.h"
#include "kv/settings.h"

#define BODY_MEMORY_BYTES_MAX 524288u    /* of one body in memory */
#define BODY_MEMORY_BYTES_SCARCE 65536u  /* the same, once BODY_MEMORY_SUM_SCARCE is in use */
#define BODY_MEMORY_SUM_SCARCE 50331648u /* 48 MiB */
#define BODY_MEMORY_SUM_MAX 134217728u   /* 128 MiB */

/* Once, before any loop runs. KV_INVALID: libh2o's calls do not arrive here. */
enum kv_err body_init(const struct kv_settings *settings);
/* On a loop's thread. `may_send` says whether the request is worth keeping a large body for; its headers are complete. Bodies of
 * PUTs in files in memory go to `work` as they come, if they said their length; `worked` hears of it. */
void body_thread_init(h2o_context_t *context, bool (*may_send)(h2o_req_t *req), struct work *work,
                      h2o_multithread_receiver_t *worked);

/* Once, when the body is complete, before anybody takes it: what the client sends behind it goes elsewhere. KV_OK: the body is there.
 * KV_TOO_LARGE, KV_OVERLOADED, KV_NO_SPACE, KV_CANCELLED (may_send said no): it was read and forgotten, its bytes are meaningless. */
enum kv_err body_settle(const h2o_req_t *req);
/* The file that holds the body of a request, from `offset` on, or NULL when it is in memory. The caller's until
 * body_file_free; the request may end before. */
struct body_file *body_take_file(const h2o_req_t *req, uint64_t *offset);
/* The job that hashes and encodes the body of a request since it began to arrive, or NULL: there is none. It is the caller's, who says
 * by work_arrived that all is there. */
struct work_job *body_take_job(const h2o_req_t *req);

/* Bytes of client buffers in memory, of all threads. */
uint64_t body_memory_bytes(void);

#endif
