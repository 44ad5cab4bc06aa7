/* tests/fuzz/fuzz_http.h -- a whole router in this process, over the twin of the backend, and one connection per input.
 * The router is the guarded one, its sockets have small buffers, so that writes stay unfinished; each connection comes from another
 * address of the loopback net, so that no input uses up another one's budget. What aborts, what a sanitizer sees, and a
 * connection that does not end after the client has: all of that is a finding. */
#ifndef KV_FUZZ_HTTP_H
#define KV_FUZZ_HTTP_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include "../http/harness.h"
#include "fuzz.h"

enum { ENDS_WITHIN_MS = 20000, SMALL_BUFFER = 16384 };

static void fuzz_store(const char *path, size_t bytes)
{
    struct kv_buf content = http_content(bytes, true);
    struct answer put = http_put(H1, path, kv_buf_peek(&content), NULL);
    FUZZ_CHECK(put.status == 201);
    answer_free(&put);
    kv_buf_free(&content);
}

static void fuzz_router_start(void)
{
    int few = SMALL_BUFFER;
    http_defaults();
    http_settings.router_threads = 1;
    http_settings.access_log = 0;
    http_settings.value_bytes_max = 1 << 20;
    http_settings.batch_bytes_max = 1 << 20;
    http_start();
    FUZZ_CHECK(setsockopt(http_server->plain_fd, SOL_SOCKET, SO_SNDBUF, &few, sizeof(few)) == 0);
    fuzz_store("/value", 15000);
    fuzz_store("/large", 300000);
}

static int fuzz_connect(void)
{
    static uint32_t last;
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001 + last++ % 0xfffff0)};
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(http_port)};
    int few = SMALL_BUFFER, on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    FUZZ_CHECK(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &few, sizeof(few));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    FUZZ_CHECK(bind(fd, (struct sockaddr *)&from, sizeof(from)) == 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0) {
        struct pollfd poller = {.fd = fd, .events = POLLOUT};
        FUZZ_CHECK(errno == EINTR); /* by the fuzzer's timer; the connection goes on being made */
        while (poll(&poller, 1, ENDS_WITHIN_MS) < 0)
            FUZZ_CHECK(errno == EINTR);
        FUZZ_CHECK(poller.revents == POLLOUT);
    }
    return fd;
}

/* Reads at most so much, or nothing when nothing comes at once. False: the router has closed. */
static bool fuzz_read(int fd, size_t bytes)
{
    static uint8_t space[65536];
    while (bytes > 0) {
        ssize_t got = recv(fd, space, bytes < sizeof(space) ? bytes : sizeof(space), MSG_DONTWAIT);
        if (got <= 0)
            return got < 0 && errno == EAGAIN;
        bytes -= (size_t)got;
    }
    return true;
}

/* What the router takes; it may wait for us to read before it takes more. */
static bool fuzz_send(int fd, struct kv_slice bytes)
{
    while (bytes.bytes > 0) {
        struct pollfd poller = {.fd = fd, .events = POLLOUT};
        ssize_t sent = send(fd, bytes.data, bytes.bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN)
            return false;
        if (sent > 0)
            bytes = kv_slice(bytes.data + sent, bytes.bytes - (size_t)sent);
        else if (poll(&poller, 1, 5) == 0 && !fuzz_read(fd, SIZE_MAX))
            return false;
    }
    return true;
}

static void fuzz_end(int fd)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    struct linger at_once = {1, 0};
    shutdown(fd, SHUT_WR);
    while (fuzz_read(fd, SIZE_MAX))
        FUZZ_CHECK(poll(&poller, 1, ENDS_WITHIN_MS) != 0); /* the fuzzer has a timer: EINTR */
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    close(fd);
}

#endif
