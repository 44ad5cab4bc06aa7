/* tests/bench/kv_bare.c -- kv-bare: libh2o with a handler that answers every request with the same bytes from memory: what
 * bounds any server on this library. One thread, HTTP/2 with prior knowledge and HTTP/1.1.
 *   kv-bare PORT BODY_BYTES        GET: the body; PUT, POST: takes the body, answers 201 and a few bytes
 * A request for /size/N answers with N bytes instead (at most BODY_BYTES); for /like-ours/N with N bytes and the headers that
 * ours has on a GET, new ones for each answer: what bounds us on this library, since HPACK is most of a small answer; for /spread/N
 * with N bytes at a random place among as many as 100,000 values of 1 KiB take in our cache: the processor has to wait for them. */
#include <arpa/inet.h>
#include <errno.h>
#include <h2o.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static h2o_globalconf_t config;
static h2o_context_t context;
static h2o_accept_ctx_t accept_context;
static h2o_iovec_t body;

enum { SPREAD_BYTES = 150 * 1024 * 1024, LINE_BYTES = 64 };

static void add(h2o_req_t *req, const char *name, const char *value, size_t bytes)
{
    h2o_iovec_t copy = h2o_strdup(&req->pool, value, bytes);
    h2o_add_header_by_str(&req->pool, &req->res.headers, name, strlen(name), 1, NULL, copy.base, copy.len);
}

/* As many distinct etags and request ids as there are answers, as many times as there are seconds. */
static void add_headers_like_ours(h2o_req_t *req)
{
    static uint64_t count;
    char tag[80], id[40];
    uint64_t bits = ++count * 0x9e3779b97f4a7c15u;
    int tag_bytes = snprintf(tag, sizeof tag, "\"%016lx%016lx%016lx%016lx\"", bits, bits * 3, bits * 5, bits * 7);
    int id_bytes = snprintf(id, sizeof id, "%016lx%016lx", bits * 9, bits * 11);
    add(req, "etag", tag, (size_t)tag_bytes);
    add(req, "vary", H2O_STRLIT("Accept-Encoding"));
    add(req, "last-modified", H2O_STRLIT("Sun, 22 Nov 2026 20:00:00 GMT"));
    add(req, "accept-ranges", H2O_STRLIT("bytes"));
    add(req, "x-content-sha256", tag + 1, 64);
    add(req, "x-hash", tag + 1, 64);
    add(req, "x-hash-algorithm", H2O_STRLIT("sha256"));
    add(req, "x-refs", H2O_STRLIT("1"));
    add(req, "x-created-at", H2O_STRLIT("1795377600"));
    add(req, "x-request-id", id, (size_t)id_bytes);
}

/* The number behind `prefix`, or `otherwise`. */
static size_t number_behind(h2o_req_t *req, const char *prefix, size_t otherwise)
{
    size_t bytes = strlen(prefix);
    if (req->path.len <= bytes || memcmp(req->path.base, prefix, bytes) != 0)
        return otherwise;
    size_t number = 0; /* not strtoul: a path of h2o ends without a zero */
    for (size_t i = bytes; i < req->path.len && req->path.base[i] >= '0' && req->path.base[i] <= '9'; i++)
        number = number * 10 + (size_t)(req->path.base[i] - '0');
    return number < body.len ? number : body.len;
}

static h2o_iovec_t spread(size_t bytes)
{
    static char *space;
    static uint64_t random = 1;
    if (space == NULL) {
        space = h2o_mem_alloc(SPREAD_BYTES);
        memset(space, 0x5a, SPREAD_BYTES);
    }
    random = random * 6364136223846793005u + 1442695040888963407u;
    size_t lines = (SPREAD_BYTES - bytes) / LINE_BYTES;
    return h2o_iovec_init(space + (random >> 32) % lines * LINE_BYTES, bytes);
}

static int on_req(h2o_handler_t *self, h2o_req_t *req)
{
    static h2o_generator_t generator = {NULL, NULL};
    (void)self;
    h2o_iovec_t answer = body;
    size_t like_ours = number_behind(req, "/like-ours/", SIZE_MAX);
    size_t spread_bytes = number_behind(req, "/spread/", SIZE_MAX);
    answer.len = like_ours != SIZE_MAX ? like_ours : number_behind(req, "/size/", body.len);
    if (spread_bytes != SIZE_MAX)
        answer = spread(spread_bytes);
    if (req->method.base[0] == 'P')
        answer.len = answer.len < 65 ? answer.len : 65;
    req->res.status = req->method.base[0] == 'P' ? 201 : 200;
    req->res.reason = "OK";
    req->res.content_length = answer.len;
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL, H2O_STRLIT("application/octet-stream"));
    if (like_ours != SIZE_MAX)
        add_headers_like_ours(req);
    h2o_start_response(req, &generator);
    h2o_send(req, &answer, 1, H2O_SEND_STATE_FINAL);
    return 0;
}

static void on_accept(h2o_socket_t *listener, const char *err)
{
    if (err != NULL)
        return;
    h2o_socket_t *socket = h2o_evloop_socket_accept(listener);
    if (socket != NULL)
        h2o_accept(&accept_context, socket);
}

static int listen_on(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 1024) != 0) {
        fprintf(stderr, "kv-bare: port %u: %s\n", port, strerror(errno));
        exit(1);
    }
    return fd;
}

static void fill_body(size_t bytes)
{
    body = h2o_iovec_init(h2o_mem_alloc(bytes + 1), bytes);
    uint32_t random = 1;
    for (size_t i = 0; i < bytes; i++) {
        random = random * 1664525u + 1013904223u;
        body.base[i] = (char)(random >> 24);
    }
}

int main(int argc, char **argv)
{
    unsigned long port = argc == 3 ? strtoul(argv[1], NULL, 10) : 0;
    if (port == 0 || port > 65535) {
        fprintf(stderr, "usage: kv-bare PORT BODY_BYTES\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    fill_body(strtoul(argv[2], NULL, 10));
    h2o_config_init(&config);
    config.http2.idle_timeout = config.http1.req_timeout = 600000;
    config.http2.latency_optimization.min_rtt = UINT_MAX; /* as the router has it */
    h2o_hostconf_t *host = h2o_config_register_host(&config, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    h2o_handler_t *handler = h2o_create_handler(h2o_config_register_path(host, "/", 0), sizeof *handler);
    handler->on_req = on_req;
    h2o_context_init(&context, h2o_evloop_create(), &config);
    accept_context.ctx = &context;
    accept_context.hosts = config.hosts;
    h2o_socket_t *listener =
        h2o_evloop_socket_create(context.loop, listen_on((unsigned)port), H2O_SOCKET_FLAG_DONT_READ);
    h2o_socket_read_start(listener, on_accept);
    for (;;)
        h2o_evloop_run(context.loop, INT32_MAX);
}
