/* Goal: clients that hardly read, or stop sending, cost others nothing: not time, not memory, not space in the store's files; and
 * they are cut off in time.
 * Method: 100 sockets ask for a large value and read one byte a second, 20 send the beginning of an upload. From the moment they ask:
 *   - time: small GETs are timed, alone and beside them. A machine with other work to do spoils both now and then, so it is
 *     done up to TRIES times and the best of each counts: readers that are waited for are waited for every time;
 *   - memory: of the router's own a chunk and a piece for each reader, of the kernel's what /proc/net/tcp says of its sockets;
 *   - files: the value is overwritten many times meanwhile; no snapshot stays open, and the pages are used again;
 *   - an end: the router's sockets are counted until the hundred are gone. */
#include <arpa/inet.h>
#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv/clock.h"
#include "memory.h"
#include "stream.h"

TestSuite(slow, .fini = harness_close, .timeout = 600);

enum {
    READERS = 100,
    SENDERS = 20,
    WAIT_MS = 8000,
    LARGE_BYTES = 16 << 20,
    ROUNDS = 12,
    TRIES = 10,
    READER_BYTES = 640 << 10, /* of the router: two frames and some */
    QUEUE_BYTES = 384 << 10,  /* of the kernel: unsent, and on its way */
};
#define FLOOR_MS 2.0            /* a p99 below it is good enough, however fast a GET is alone */
#define FLOOR_SANITIZED_MS 50.0 /* where moving bytes costs ten times as much */

struct crowd {
    int readers[READERS], senders[SENDERS];
    atomic_bool leaving;
    pthread_t thread;
};

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

/* ---- the crowd ------------------------------------------------------------------------------------------------ */

static void *read_slowly(void *arg)
{
    struct crowd *crowd = arg;
    for (unsigned turn = 1; !crowd->leaving; turn++) {
        char byte;
        for (unsigned i = 0; i < READERS && turn % 20 == 0; i++) {
            ssize_t ignored = recv(crowd->readers[i], &byte, 1, MSG_DONTWAIT);
            (void)ignored;
        }
        sleep_ms(50);
    }
    return NULL;
}

static void crowd_come(struct crowd *crowd, const struct server *server)
{
    crowd->leaving = false;
    for (unsigned i = 0; i < READERS; i++)
        crowd->readers[i] = begin_get(server);
    for (unsigned i = 0; i < SENDERS; i++)
        crowd->senders[i] = begin_put(server);
    CHECK(pthread_create(&crowd->thread, NULL, read_slowly, crowd) == 0);
}

static void crowd_leave(struct crowd *crowd)
{
    crowd->leaving = true;
    pthread_join(crowd->thread, NULL);
    for (unsigned i = 0; i < READERS; i++)
        close(crowd->readers[i]);
    for (unsigned i = 0; i < SENDERS; i++)
        close(crowd->senders[i]);
}

/* ---- what it costs others --------------------------------------------------------------------------------------- */

/* The crowd has come at `begin_ms` and is there when this returns. */
static void expect_no_delay(const struct server *server, struct crowd *crowd, unsigned sockets, uint64_t *begin_ms)
{
    pid_t router = server_child(server, "kv-router", -1);
    double floor_ms = memory_is_sanitized(router) ? FLOOR_SANITIZED_MS : FLOOR_MS, alone_ms = 0, beside_ms = 0;
    for (unsigned i = 1;; i++) {
        double now_ms = p99_of_gets(server);
        alone_ms = i == 1 || now_ms < alone_ms ? now_ms : alone_ms;
        *begin_ms = kv_clock_ms();
        crowd_come(crowd, server);
        now_ms = p99_of_gets(server);
        beside_ms = i == 1 || now_ms < beside_ms ? now_ms : beside_ms;
        fprintf(stderr, "p99 of small GETs, best of %u: %.3f ms alone, %.3f beside\n", i, alone_ms, beside_ms);
        if (beside_ms < 3 * alone_ms || beside_ms < floor_ms)
            return;
        CHECK(i < TRIES, "small GETs wait for slow readers: %.3f ms alone, %.3f beside", alone_ms, beside_ms);
        crowd_leave(crowd);
        while (sockets_of(router) > sockets)
            sleep_ms(20);
    }
}

/* The longest send queue of a connection of this port. */
static unsigned long longest_queue(const struct server *server)
{
    char line[512];
    unsigned long longest = 0;
    FILE *table = fopen("/proc/net/tcp", "re");
    CHECK(table != NULL);
    while (fgets(line, sizeof line, table) != NULL) {
        unsigned port;
        unsigned long queued;
        if (sscanf(line, "%*s %*8x:%x %*s %*x %lx:", &port, &queued) == 2 && port == server->port && queued > longest)
            longest = queued;
    }
    fclose(table);
    return longest;
}

/* Beside readers that were not cut off yet. */
static void expect_little_memory(const struct server *server, const struct memory *before)
{
    pid_t router = server_child(server, "kv-router", -1);
    uint64_t now = memory_of(router).anon, more = now > before->anon ? now - before->anon : 0;
    unsigned long queued = longest_queue(server);
    fprintf(stderr, "the router has %lu KiB more, a send queue at most %lu KiB\n", more >> 10, queued >> 10);
    if (!memory_is_sanitized(router))
        CHECK(more < READERS * READER_BYTES + SENDERS * (1u << 20), "%lu bytes more", more);
    CHECK(queued > 0 && queued <= QUEUE_BYTES, "%lu bytes wait in the kernel", queued);
}

/* Transactions that were committed since the oldest snapshot was opened that LMDB must keep. */
static unsigned long oldest_snapshot(struct client *client)
{
    static const char name[] = "\nkv_storage_shard_map_oldest_reader_transactions";
    const struct response *response = client_get(client, "/metrics");
    char *text = kv_alloc(response->body.bytes + 1);
    memcpy(text, response->body.data, response->body.bytes);
    text[response->body.bytes] = '\0';
    const char *line = strstr(text, name);
    const char *value = line == NULL ? NULL : strchr(line + 1, ' ');
    CHECK(value != NULL, "%ld %s", response->status, text);
    unsigned long transactions = strtoul(value, NULL, 10);
    free(text);
    return transactions;
}

static void expect_no_growth(const struct server *server)
{
    struct client *client = client_new(server, HTTP_1);
    uint64_t before = lmdb_bytes(server);
    overwrite(server);
    uint64_t after = lmdb_bytes(server);
    fprintf(stderr,
            "LMDB's file: %lu MiB, after %d times %d MiB more %lu; the oldest snapshot is %lu transactions old\n",
            before >> 20, ROUNDS, LARGE_BYTES >> 20, after >> 20, oldest_snapshot(client));
    CHECK(after < before + 5 * (uint64_t)LARGE_BYTES, "what was replaced is not used again");
    CHECK(oldest_snapshot(client) < ROUNDS, "a snapshot is as old as the readers");
    client_free(&client);
}

Test(slow, readers_and_senders_cost_others_nothing)
{
    static struct crowd crowd;
    char wait[32];
    snprintf(wait, sizeof wait, "CLIENT_WAIT_MS=%d", WAIT_MS);
    struct server *server = server_start((struct server_opts){.shards = 1, .settings = {wait}});
    pid_t router = server_child(server, "kv-router", -1);
    struct stream stream = {STREAM_RANDOM, 1, LARGE_BYTES};
    struct client *client = client_new(server, HTTP_1);
    CHECK(stream_put(server, HTTP_1, "/large", &stream).status == 201);
    CHECK(client_put(client, "/small", kv_slice_text("a small value"))->status == 201);
    client_free(&client);
    p99_of_gets(server); /* warms up */
    unsigned sockets = sockets_of(router);
    struct memory before = memory_of(router);
    uint64_t begin_ms;
    expect_no_delay(server, &crowd, sockets, &begin_ms);
    bool all_there = sockets_of(router) >= READERS + SENDERS;
    CHECK(all_there || kv_clock_ms() >= begin_ms + WAIT_MS, "they were cut off early");
    if (all_there)
        expect_little_memory(server, &before);
    expect_no_growth(server);
    while (sockets_of(router) > sockets && kv_clock_ms() < begin_ms + 10 * WAIT_MS)
        sleep_ms(100);
    CHECK(sockets_of(router) <= sockets, "%u sockets after %d ms", sockets_of(router) - sockets, 10 * WAIT_MS);
    fprintf(stderr, "all were cut off after %lu ms\n", kv_clock_ms() - begin_ms);
    crowd_leave(&crowd);
}
