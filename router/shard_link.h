/* router/shard_link.h -- the sockets of one router thread to its shards: the rim around calls.h.
 * Does:     connects to `shard-<i>` below KV_FD_ROUTER_SOCKETS (through /proc/self/fd), says HELLO with the epoch, checks the
 *           shard's HELLO (version, index, count), then moves frames: all output of a loop turn in one write. Reconnects by
 *           itself: at once, then every 20 ms growing to 200 ms, each pause with a timer of the loop.
 * Promises: calls.h sees link_up only after the HELLO of the right shard; a link that breaks the protocol is closed and
 *           logged. A shard whose HELLO names a newer epoch (a newer router) ends this process: kv_fatal.
 * Tests:    unit/router/test_shard_link.c, system/. */
#ifndef KV_ROUTER_SHARD_LINK_H
#define KV_ROUTER_SHARD_LINK_H

#include "calls.h"

#define SHARD_LINK_BUFFER_BYTES (1u << 20) /* asked for as SO_SNDBUF on both ends: a PIECE in one write */

struct st_h2o_context_t;
struct shard_links;

struct shard_links_options {
    struct st_h2o_context_t *context;
    int sockets_fd; /* AT_FDCWD: the sockets are in the working directory */
    unsigned shard_count;
    uint64_t epoch;
    unsigned thread_index; /* said in HELLO: a shard closes what an earlier link of the same thread left */
    /* A link came up or went down (after calls.h was told). May be NULL. */
    void (*on_change)(void *arg, unsigned shard_index, bool up);
    void *arg;
};

/* Starts connecting. `calls_out` receives the calls that travel over these links. */
struct shard_links *shard_links_new(const struct shard_links_options *options, struct calls **calls_out);
/* Gives back buffers in which nothing is; not from within a callback. */
void shard_links_trim(struct shard_links *links);
/* Closes the sockets and frees the calls; not from within a callback. For tests: a router just exits. */
void shard_links_free(struct shard_links **links);

#endif
