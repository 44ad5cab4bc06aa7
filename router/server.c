/* router/server.c -- see server.h. */
#include "server.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "body.h"
#include "digest.h"
#include "h2o_guard.h"
#include "http.h"
#include "kv/clock.h"
#include "kv/log.h"
#include "listen.h"
#include "metrics.h"
#include "metrics_process.h"
#include "random.h"
#include "task.h"
#include "thread.h"
#include "tls.h"
#include "work.h"

enum {
    HANDSHAKE_WAIT_MS = 10000,
    H1_WAIT_MS = 86400000,      /* libh2o's one deadline for a whole HTTP/1 request: h2o_guard_sweep.c has finer ones */
    BODY_EXCESS_MAX = 16,       /* times MAX_VALUE_BYTES or MAX_BATCH_BYTES are read for the sake of an answer */
    DESCRIPTORS_RESERVED = 128, /* shards, loops, listeners, body files; the rest may be connections */
};

static bool is_listening(int fd)
{
    int listening = 0;
    socklen_t bytes = sizeof(listening);
    return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &bytes) == 0 && listening != 0;
}

/* What h2o itself cuts off, at the start of HTTP/1 (413 in its own words) or in the middle of HTTP/2 (a refused stream): far
 * above the largest body we take, since bodies that are too large cost nothing (body.h) and shall get our 413. */
static size_t body_bytes_max(const struct kv_settings *settings)
{
    uint64_t largest =
        settings->value_bytes_max > settings->batch_bytes_max ? settings->value_bytes_max : settings->batch_bytes_max;
    return BODY_EXCESS_MAX * largest;
}

static void configure(struct server *server)
{
    const struct kv_settings *settings = server->settings;
    h2o_globalconf_t *config = &server->config;
    h2o_config_init(config);
    config->server_name = h2o_iovec_init(H2O_STRLIT("kv-storage"));
    config->max_request_entity_size = body_bytes_max(settings);
    config->handshake_timeout = HANDSHAKE_WAIT_MS;
    config->http1.req_timeout = h2o_guard_is_on() ? H1_WAIT_MS : settings->client_wait_ms;
    config->http2.idle_timeout = settings->client_wait_ms;
    config->http2.max_concurrent_requests_per_connection = (size_t)settings->requests_per_connection_max;
    config->http2.graceful_shutdown_timeout = settings->drain_wait_ms;
    config->http2.latency_optimization.min_rtt = UINT_MAX; /* off: its partial writes meet h2o's bug #1951 */
    h2o_hostconf_t *host = h2o_config_register_host(config, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    http_register(h2o_config_register_path(host, "/", 0));
}

/* Connections that one thread may hold. Without a spare descriptor the library would spin around accept(). */
static size_t connections_per_thread(struct server *server)
{
    uint64_t max = server->settings->connections_max;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        server->fds_max = limit.rlim_cur;
        uint64_t room =
            limit.rlim_cur > 2 * DESCRIPTORS_RESERVED ? limit.rlim_cur - DESCRIPTORS_RESERVED : limit.rlim_cur / 2;
        if (max > room) {
            kv_warn("CONNECTIONS_MAX is %lu, but the limit of open files (%lu) leaves room for %lu connections", max,
                    (uint64_t)limit.rlim_cur, room);
            max = room;
        }
    }
    return max > server->thread_count ? max / server->thread_count : 1;
}

/* Is it the library that the router was written for? */
static enum kv_err check_library(const struct kv_settings *settings, char *why, size_t why_bytes)
{
    if (h2o_guard_check(why, why_bytes) != KV_OK)
        return KV_INVALID;
    if (body_init(settings) == KV_OK)
        return KV_OK;
    snprintf(why, why_bytes, "this libh2o does not leave request bodies to the router: it is another build than 2.2.5");
    return KV_INVALID;
}

static enum kv_err check_listeners(const struct server *server, char *why, size_t why_bytes)
{
    if (server->plain_fd >= 0 || server->tls_fd >= 0)
        return KV_OK;
    snprintf(why, why_bytes, "neither BIND_ADDR nor TLS_BIND_ADDR is open: there is nothing to serve");
    return KV_INVALID;
}

/* Tokens, and where TLS is on its context: both or neither. */
static enum kv_err load_files(const struct server *server, const struct kv_files *files, struct tokens **tokens,
                              SSL_CTX **tls, char *why, size_t why_bytes)
{
    enum kv_err err = tokens_new(server->has_token ? &server->token_hash : NULL, files, tokens, why, why_bytes);
    if (err == KV_OK && server->tls_fd >= 0)
        err = tls_new(files, tls, why, why_bytes);
    if (err != KV_OK)
        tokens_release(tokens);
    return err;
}

/* All that threads share, but for what server_start makes. */
static void set_up(struct server *server, struct kv_counters_page *counters)
{
    const struct kv_settings *settings = server->settings;
    uint64_t marks = CACHE_SHARE(settings->cache_bytes) / CACHE_BYTES_PER_MARK;
    kv_assert(settings->router_threads > 0); /* the supervisor has chosen (config.c) */
    server->thread_count = (unsigned)settings->router_threads;
    server->started_s = kv_clock_unix_s();
    server->certificate_expires_s = server->tls == NULL ? 0 : tls_expires_s(server->tls);
    server->counters = counters != NULL ? counters : kv_counters_page_open(-1);
    server->metrics = metrics_open(server->counters);
    metrics_process_open();
    server->marks = marks_new(marks > MARKS_SLOTS_MIN ? marks : MARKS_SLOTS_MIN, random_seed());
    server->door = h2o_guard_door_new(settings);
    server->connections_max = connections_per_thread(server);
    listeners_set_options(server->plain_fd, settings->client_wait_ms);
    listeners_set_options(server->tls_fd, settings->client_wait_ms);
    configure(server);
}

enum kv_err server_new(const struct server_options *options, struct server **out, char *why, size_t why_bytes)
{
    static const struct kv_files no_files;
    struct server *server = kv_alloc_zero(1, sizeof(*server));
    server->settings = options->settings;
    server->plain_fd = is_listening(options->plain_fd) ? options->plain_fd : -1;
    server->tls_fd = is_listening(options->tls_fd) ? options->tls_fd : -1;
    server->sockets_fd = options->sockets_fd;
    server->has_token = *options->settings->token != '\0';
    server->token_hash = digest_of(kv_slice_text(options->settings->token));
    enum kv_err err = check_library(server->settings, why, why_bytes);
    if (err == KV_OK)
        err = check_listeners(server, why, why_bytes);
    if (err == KV_OK)
        err = load_files(server, options->files != NULL ? options->files : &no_files, &server->tokens, &server->tls,
                         why, why_bytes);
    if (err != KV_OK) {
        free(server);
        return err;
    }
    set_up(server, options->counters);
    *out = server;
    return KV_OK;
}

void server_start(struct server *server)
{
    server->work = work_new((int)server->settings->compression_level);
    server->tasks = tasks_new((int)server->settings->compression_level);
    server->threads = kv_alloc_zero(server->thread_count, sizeof(*server->threads));
    for (unsigned i = 0; i < server->thread_count; i++)
        thread_start(&server->threads[i], server, i);
    for (unsigned i = 0; i < server->thread_count; i++)
        thread_wait_serving(&server->threads[i]);
}

static void use(struct server *server, struct tokens *tokens, SSL_CTX *tls)
{
    for (unsigned i = 0; i < server->thread_count; i++)
        thread_use(&server->threads[i], tokens, tls);
    tokens_release(&server->tokens); /* threads, listeners and connections have references of their own */
    server->tokens = tokens;
    if (tls == NULL)
        return;
    SSL_CTX_free(server->tls);
    server->tls = tls;
    server->certificate_expires_s = tls_expires_s(tls);
}

enum kv_err server_reload(struct server *server, const struct kv_files *files, char *why, size_t why_bytes)
{
    SSL_CTX *tls = NULL;
    struct tokens *tokens = NULL;
    enum kv_err err = load_files(server, files, &tokens, &tls, why, why_bytes);
    if (err == KV_OK)
        use(server, tokens, tls);
    return err;
}

bool server_drain(struct server *server, uint64_t wait_ms)
{
    uint64_t deadline_ms = kv_clock_ms() + wait_ms;
    bool drained = true;
    for (unsigned i = 0; i < server->thread_count; i++)
        thread_drain(&server->threads[i], wait_ms);
    for (unsigned i = 0; i < server->thread_count; i++)
        drained = thread_wait_drained(&server->threads[i], deadline_ms) && drained;
    return drained;
}
