/* Goal: values that come through memory shared by router and shards are the right ones to the last byte, whoever dies or stops reading
 * meanwhile: the death of a shard costs time alone, and clients that do not read leave the others a way.
 * Method: without a cache, sockets that ask for values and read none of them take all slots that are lent. Readers beside them get values of
 * every size and compare them, while shards are killed with SIGKILL; then the slow ones read on, what the dead wrote included. */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"

TestSuite(slots, .fini = harness_close, .timeout = 180);

enum { VALUES = 24, READERS = 3, SLOW = 60, KILLS = 4, SHARDS = 2 };

static const uint64_t sizes[] = {4000, 9000, 16384, 65536, 70000, 200000, 262144, 1 << 20};

static struct stream value_of(unsigned number)
{
    return (struct stream){STREAM_RANDOM, number + 1, sizes[number % (sizeof sizes / sizeof *sizes)]};
}

static void target_of(unsigned number, char out[32])
{
    snprintf(out, 32, "/value-%u", number);
}

static void store(const struct server *server)
{
    char target[32];
    for (unsigned i = 0; i < VALUES; i++) {
        struct stream value = value_of(i);
        target_of(i, target);
        CHECK(stream_put(server, HTTP_1, target, &value).status == 201);
    }
}

/* ---- readers ----------------------------------------------------------------------------------------------------- */

struct reader {
    const struct server *server;
    enum http http;
    unsigned seed;
    atomic_bool *leaving;
    atomic_uint done;
    char problem[CURL_ERROR_SIZE + 64];
    pthread_t thread;
};

static void *read_values(void *arg)
{
    struct reader *reader = arg;
    char target[32];
    for (unsigned i = reader->seed; !*reader->leaving && reader->problem[0] == '\0'; i = i * 1103515245u + 12345u) {
        unsigned number = i / 65536 % VALUES;
        struct stream value = value_of(number);
        target_of(number, target);
        struct transfer got = stream_get(reader->server, reader->http, target, &value, 0, 0);
        if (got.status != 200 || !got.exact || got.bytes != value.bytes)
            snprintf(reader->problem, sizeof reader->problem, "%s: %ld, %lu bytes, %s", target, got.status,
                     (unsigned long)got.bytes, got.problem);
        atomic_fetch_add(&reader->done, 1);
    }
    return NULL;
}

/* ---- clients that do not read ------------------------------------------------------------------------------------ */

struct slow {
    int fd;
    unsigned number;
};

static struct slow ask(const struct server *server, unsigned number)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)server->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int small = 4096;
    char text[160];
    struct slow slow = {socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), number};
    setsockopt(slow.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    CHECK(slow.fd >= 0 && connect(slow.fd, (struct sockaddr *)&address, sizeof address) == 0);
    int bytes = snprintf(
        text, sizeof text,
        "GET /value-%u HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " TOKEN "\r\n\r\n", number);
    CHECK(write(slow.fd, text, (size_t)bytes) == bytes);
    return slow;
}

/* Everything that comes until the end must be the value. */
static void read_on(const struct slow *slow)
{
    struct stream value = value_of(slow->number);
    struct kv_buf got = {0};
    ssize_t more;
    while ((more = read(slow->fd, kv_buf_reserve(&got, 65536), 65536)) > 0)
        got.bytes += (size_t)more;
    const uint8_t *body = memmem(got.data, got.bytes, "\r\n\r\n", 4);
    CHECK(body != NULL && got.bytes - (size_t)(body + 4 - got.data) == value.bytes, "%zu bytes of %lu", got.bytes,
          (unsigned long)value.bytes);
    uint8_t *wanted = kv_alloc(value.bytes);
    stream_fill(&value, 0, wanted, value.bytes);
    CHECK(memcmp(body + 4, wanted, value.bytes) == 0, "value %u", slow->number);
    free(wanted);
    kv_buf_free(&got);
    close(slow->fd);
}

/* ---- the test ---------------------------------------------------------------------------------------------------- */

static void kill_shard(struct server *server, int index)
{
    pid_t old = server_child(server, "kv-shard", index);
    CHECK(old != 0, "shard %d does not run", index);
    kill(old, SIGKILL);
    CHECK(processes_die_within(&old, 1, 10000));
    server_wait_ready(server);
}

Test(slots, hold_the_right_bytes_whoever_dies_or_stops_reading)
{
    struct server *server =
        server_start((struct server_opts){.shards = SHARDS, .settings = {"CACHE_BYTES=0", "ROUTER_THREADS=1"}});
    static struct reader readers[READERS];
    struct slow slow[SLOW];
    atomic_bool leaving = false;
    store(server);
    for (unsigned i = 0; i < SLOW; i++)
        slow[i] = ask(server, i % 4 == 0 ? 6 : 7); /* 256 KiB and 1 MiB: more than the sockets hold */
    for (unsigned i = 0; i < READERS; i++) {
        readers[i] = (struct reader){.server = server, .http = (enum http)i, .seed = i + 1, .leaving = &leaving};
        CHECK(pthread_create(&readers[i].thread, NULL, read_values, &readers[i]) == 0);
    }
    for (int i = 0; i < KILLS; i++) {
        unsigned before = readers[0].done;
        while (readers[0].done < before + 5 && readers[0].problem[0] == '\0')
            usleep(5000);
        kill_shard(server, i % SHARDS);
    }
    leaving = true;
    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        CHECK(readers[i].problem[0] == '\0', "%s", readers[i].problem);
    }
    for (unsigned i = 0; i < SLOW; i++)
        read_on(&slow[i]);
    server_stop(server);
}
