/* router/server.h -- the router process as a whole: configuration of h2o, TLS, the worker thread, the loops.
 * Does:     builds what all threads share, starts them, and drains them.
 * Promises: server_start returns when every loop serves. After server_drain no connection is accepted; requests under way
 *           are answered, on both protocols, within the time given.
 * Fails:    server_new with one sentence that names the variable (the start is wrong). Afterwards: fatal.
 * Tests:    http/. */
#ifndef KV_ROUTER_SERVER_H
#define KV_ROUTER_SERVER_H

#include <h2o.h>

#include "kv/files.h"
#include "kv/settings.h"
#include "tokens.h"

struct router_thread;
struct work;
struct tasks;
struct metrics;
struct kv_counters_page;
struct guard_door;
struct marks;

struct server {
    const struct kv_settings *settings;
    int plain_fd;   /* listening, or -1 */
    int tls_fd;     /* listening, or -1 */
    int sockets_fd; /* KV_FD_ROUTER_SOCKETS, handed on to the backend */
    h2o_globalconf_t config;
    SSL_CTX *tls;                           /* NULL: no TLS */
    _Atomic uint64_t certificate_expires_s; /* 0: no TLS */
    struct kv_hash token_hash;              /* of TOKEN */
    bool has_token;
    struct tokens *tokens; /* threads have references of their own */
    struct marks *marks;   /* what the threads write, for the sake of caches and of reads from two shards */
    struct work *work;
    struct tasks *tasks;
    struct guard_door *door; /* budgets of addresses */
    struct kv_counters_page *counters;
    struct metrics *metrics; /* within it */
    uint64_t started_s;      /* Unix seconds */
    struct router_thread *threads;
    unsigned thread_count;
    size_t connections_max; /* per thread */
    uint64_t fds_max;       /* of the process */
};

struct server_options {
    const struct kv_settings *settings; /* must outlive the server, but for its token, which is not looked at again */
    const struct kv_files *files;       /* NULL: none. Not looked at again */
    int plain_fd;                       /* a descriptor that does not listen means off */
    int tls_fd;
    int sockets_fd;
    struct kv_counters_page *counters; /* NULL: counters of this server alone */
};

/* KV_INVALID: `why` is one sentence. */
enum kv_err server_new(const struct server_options *options, struct server **out, char *why, size_t why_bytes);
void server_start(struct server *server);
/* Takes tokens and, when TLS is on, its certificates from these files, for requests and connections to come. KV_INVALID: `why` is
 * one sentence, all stays as it was. From one thread only. */
enum kv_err server_reload(struct server *server, const struct kv_files *files, char *why, size_t why_bytes);
/* Whether everything was answered within `wait_ms`. The process ends afterwards: threads and memory stay as they are. */
bool server_drain(struct server *server, uint64_t wait_ms);

#endif
