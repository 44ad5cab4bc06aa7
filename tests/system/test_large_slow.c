/* Goal: clients that hardly read, or stop sending, cost others nothing: not time, not memory, not space in the store's files; and
 * they are cut off in time.
 * Method: 100 sockets ask for a large value and read one byte a second, 20 send the beginning of an upload; beside them small GETs are
 * timed and the value is overwritten many times; then the router's sockets are counted until the hundred are gone. */
#include <arpa/inet.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv/clock.h"
#include "memory.h"
#include "stream.h"

TestSuite(slow, .fini = harness_close, .timeout = 300);

enum { READERS = 100, SENDERS = 20, WAIT_MS = 8000, LARGE_BYTES = 16 << 20, ROUNDS = 12 };

static int connect_slowly(const struct server *server)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)server->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int small = 4096;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

static int begin_get(const struct server *server)
{
    static const char text[] = "GET /large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN "\r\n\r\n";
    int fd = connect_slowly(server);
    CHECK(write(fd, text, sizeof text - 1) == (ssize_t)sizeof text - 1);
    return fd;
}

static int begin_put(const struct server *server)
{
    static const char text[] =
        "PUT /never HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN "\r\nContent-Length: 2000000\r\n\r\n";
    static uint8_t bytes[1000000];
    int fd = connect_slowly(server);
    CHECK(write(fd, text, sizeof text - 1) == (ssize_t)sizeof text - 1);
    for (size_t at = 0; at < sizeof bytes;) {
        ssize_t put = write(fd, bytes + at, sizeof bytes - at);
        CHECK(put > 0);
        at += (size_t)put;
    }
    return fd;
}

/* Sockets that the router has open. */
static unsigned sockets_of(pid_t router)
{
    char path[64], target[64];
    unsigned count = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)router);
    DIR *folder = opendir(path);
    CHECK(folder != NULL);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        ssize_t got = readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1);
        target[got > 0 ? got : 0] = '\0';
        count += strncmp(target, "socket:", 7) == 0;
    }
    closedir(folder);
    return count;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Milliseconds that 99 of 100 small GETs took at most. */
static double p99_of_gets(const struct server *server)
{
    enum { GETS = 1000 };
    static double took_ms[GETS];
    struct client *client = client_new(server, HTTP_2);
    for (unsigned i = 0; i < GETS; i++) {
        uint64_t begin_ns = kv_clock_ns();
        const struct response *response = client_get(client, "/small");
        CHECK(response->status == 200, "%ld %s", response->status, response->problem);
        took_ms[i] = (double)(kv_clock_ns() - begin_ns) / 1e6;
    }
    client_free(&client);
    qsort(took_ms, GETS, sizeof *took_ms, compare_doubles);
    return took_ms[GETS * 99 / 100];
}

static uint64_t lmdb_bytes(const struct server *server)
{
    char path[128];
    struct stat file;
    snprintf(path, sizeof path, "%s/shard-0/data.mdb", server->db_path);
    CHECK(stat(path, &file) == 0, "%s", path);
    return (uint64_t)file.st_size;
}

static void overwrite(const struct server *server)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct stream stream = {STREAM_RANDOM, 100 + i, LARGE_BYTES};
        struct transfer up = stream_put(server, HTTP_1, "/large", &stream);
        CHECK(up.status == 200, "%ld %s %s", up.status, up.problem, up.text);
        sleep_ms(600); /* what was replaced is swept when nothing else is to be done */
    }
}

static void read_a_byte(const int *fds)
{
    char byte;
    for (unsigned i = 0; i < READERS; i++) {
        ssize_t ignored = recv(fds[i], &byte, 1, MSG_DONTWAIT);
        (void)ignored;
    }
}

Test(slow, readers_and_senders_cost_others_nothing)
{
    int readers[READERS], senders[SENDERS];
    char wait[32];
    snprintf(wait, sizeof wait, "CLIENT_WAIT_MS=%d", WAIT_MS);
    struct server *server = server_start((struct server_opts){.shards = 1, .settings = {wait}});
    pid_t router = server_child(server, "kv-router", -1);
    struct stream stream = {STREAM_RANDOM, 1, LARGE_BYTES};
    struct client *client = client_new(server, HTTP_1);
    CHECK(stream_put(server, HTTP_1, "/large", &stream).status == 201);
    CHECK(client_put(client, "/small", kv_slice_text("a small value"))->status == 201);
    client_free(&client);
    double alone_ms = p99_of_gets(server);
    unsigned sockets = sockets_of(router);
    struct memory before = memory_of(router);
    uint64_t begin_ms = kv_clock_ms();
    for (unsigned i = 0; i < READERS; i++)
        readers[i] = begin_get(server);
    for (unsigned i = 0; i < SENDERS; i++)
        senders[i] = begin_put(server);
    double beside_ms = p99_of_gets(server);
    struct memory after = memory_of(router);
    fprintf(stderr, "p99 of small GETs: %.3f ms alone, %.3f beside; the router has %lu KiB more\n", alone_ms, beside_ms,
            (after.anon - before.anon) >> 10);
    /* a loaded machine has hiccups of its own; readers that are waited for would cost seconds */
    CHECK(beside_ms < 3 * alone_ms || beside_ms < 100, "%.3f ms alone, %.3f beside", alone_ms, beside_ms);
    if (!memory_is_sanitized(router))
        CHECK(after.anon - before.anon < READERS * (1u << 20) + SENDERS * (1u << 20), "%lu bytes more",
              after.anon - before.anon);
    CHECK(sockets_of(router) >= READERS + SENDERS, "they were cut off at once");
    uint64_t file_before = lmdb_bytes(server);
    overwrite(server);
    uint64_t file_after = lmdb_bytes(server);
    fprintf(stderr, "LMDB's file: %lu MiB, after %d times %d MiB more %lu\n", file_before >> 20, ROUNDS,
            LARGE_BYTES >> 20, file_after >> 20);
    CHECK(file_after < file_before + 5 * (uint64_t)LARGE_BYTES, "what was replaced is not used again");
    while (sockets_of(router) > sockets && kv_clock_ms() < begin_ms + 4 * WAIT_MS) {
        read_a_byte(readers);
        sleep_ms(1000);
    }
    CHECK(sockets_of(router) <= sockets, "%u sockets after %d ms", sockets_of(router) - sockets, 4 * WAIT_MS);
    fprintf(stderr, "all were cut off after %lu ms\n", kv_clock_ms() - begin_ms);
    for (unsigned i = 0; i < READERS; i++)
        close(readers[i]);
    for (unsigned i = 0; i < SENDERS; i++)
        close(senders[i]);
}
