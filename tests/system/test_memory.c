/* Goal: what a load needed comes back. Memory: a store of two shards that nobody asks anything takes less than 24 MiB in all its
 * processes, page cache left out; and it goes on afterwards as if nothing had happened.
 * Method: small values in bulk, large values, batches and listings through a router without a cache (what a cache holds leaves after
 * minutes: unit/router/test_cache.c), until the processes together hold a multiple; RssAnon and RssShmem are read until they are
 * small, which a slow machine may take its time for. Then everything is read back and written anew, and once more. The disk: one large
 * value is overwritten again and again, and the file stays a few values large. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "bulk.h"
#include "kv/clock.h"
#include "memory.h"

TestSuite(memory, .fini = harness_close, .timeout = 900);

enum { SMALL_KEYS = 20000, SMALL_BYTES = 1024, LARGE_KEYS = 8, LARGE_BYTES = 6 << 20, IN_FLIGHT = 64, ROUNDS = 2 };
#define LOADED_BYTES_MIN ((uint64_t)32 << 20)
#define REST_BYTES_MAX ((uint64_t)24 << 20)
#define REST_WAIT_MS 300000u
#define SANITIZED_WAIT_MS 25000u /* shadow memory tells nothing: both processes have had the time to rest */

/* ---- load ------------------------------------------------------------------------------------------------------- */

struct small {
    unsigned round;
    bool read;
    char targets[SMALL_KEYS][32];
    uint8_t bodies[SMALL_KEYS][SMALL_BYTES];
};

static void fill(uint8_t *bytes, size_t count, uint64_t seed)
{
    for (size_t i = 0; i < count; i += sizeof seed) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        memcpy(bytes + i, &seed, sizeof seed);
    }
}

static void make(void *arg, size_t i, struct request *out)
{
    struct small *small = arg;
    *out = (struct request){.method = small->read ? "GET" : "PUT", .target = small->targets[i]};
    out->has_body = !small->read;
    out->body = small->read ? kv_slice(NULL, 0) : kv_slice(small->bodies[i], SMALL_BYTES);
}

static void done(void *arg, size_t i, const struct response *response)
{
    const struct small *small = arg;
    CHECK(response->status == 200 || response->status == 201, "%s: %ld %s", small->targets[i], response->status,
          response->problem);
    if (small->read)
        CHECK(response_body_is(response, kv_slice(small->bodies[i], SMALL_BYTES)), "%s", small->targets[i]);
}

static void run_small(const struct server *server, struct small *small, bool read)
{
    small->read = read;
    struct bulk bulk = {server, HTTP_2, SMALL_KEYS, IN_FLIGHT, make, done, small};
    CHECK(bulk_run(&bulk));
}

static struct small *small_new(unsigned round)
{
    struct small *small = kv_alloc_zero(1, sizeof *small);
    for (unsigned i = 0; i < SMALL_KEYS; i++) {
        snprintf(small->targets[i], sizeof small->targets[i], "/memory/%u", i);
        fill(small->bodies[i], SMALL_BYTES, (uint64_t)round << 32 | i);
    }
    return small;
}

static void run_large(struct client *client, unsigned round, bool read)
{
    char target[32];
    uint8_t *body = kv_alloc(LARGE_BYTES);
    for (unsigned i = 0; i < LARGE_KEYS; i++) {
        snprintf(target, sizeof target, "/large/%u", i);
        fill(body, LARGE_BYTES, (uint64_t)(round + 100) << 32 | i);
        const struct response *response =
            read ? client_get(client, target) : client_put(client, target, kv_slice(body, LARGE_BYTES));
        CHECK(response->status == 200 || response->status == 201, "%s: %ld", target, response->status);
        if (read)
            CHECK(response_body_is(response, kv_slice(body, LARGE_BYTES)), "%s", target);
    }
    free(body);
}

static void run_others(struct client *client)
{
    const char *batch = "[{\"op\":\"put\",\"key\":\"b\",\"value\":\"1\"},{\"op\":\"get\",\"key\":\"b\"}]";
    for (unsigned i = 0; i < 50; i++) {
        struct request request = {.method = "POST", .target = "/batch", .body = kv_slice_text(batch), .has_body = true};
        CHECK(client_send(client, &request)->status == 200);
        CHECK(client_get(client, "/keys?limit=1000&prefix=memory")->status == 200);
    }
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static uint64_t memory_in_all(const struct server *server)
{
    struct child children[CHILDREN_MAX];
    size_t count = server_children(server, children);
    uint64_t sum = memory_of(server->pid).own;
    CHECK(count == 3, "%zu children", count);
    for (size_t i = 0; i < count; i++)
        sum += memory_of(children[i].pid).own;
    return sum;
}

static void expect_rest(const struct server *server)
{
    uint64_t begin_ms = kv_clock_ms(), loaded = memory_in_all(server), now = loaded;
    bool sanitized = memory_is_sanitized(server_child(server, "kv-router", -1));
    uint64_t wait_ms = sanitized ? SANITIZED_WAIT_MS : REST_WAIT_MS;
    while ((sanitized || now >= REST_BYTES_MAX) && kv_clock_ms() - begin_ms < wait_ms) {
        sleep_ms(200);
        now = memory_in_all(server);
    }
    fprintf(stderr, "KiB without the page cache: loaded %lu, at rest %lu\n", loaded >> 10, now >> 10);
    if (sanitized)
        return;
    CHECK(loaded > LOADED_BYTES_MIN, "%lu bytes under load: nothing is shown by less at rest", loaded);
    CHECK(now < REST_BYTES_MAX, "%lu bytes at rest", now);
}

Test(memory, comes_back_after_a_load)
{
    struct server *server =
        server_start((struct server_opts){.shards = 2, .settings = {"CACHE_BYTES=0", "ROUTER_THREADS=1"}});
    struct client *client = client_new(server, HTTP_2);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct small *small = small_new(round);
        run_large(client, round, false);
        run_others(client);
        run_small(server, small, false);
        run_small(server, small, true);
        expect_rest(server);
        run_small(server, small, true);
        run_large(client, round, true);
        free(small);
    }
    client_free(&client);
    server_stop(server);
    struct store_counts counts = server_check_files(server, 2);
    CHECK(counts.keys == SMALL_KEYS + LARGE_KEYS + 1 && counts.objects == counts.keys, "%lu keys, %lu objects",
          counts.keys, counts.objects);
}

/* ---- the disk ----------------------------------------------------------------------------------------------------- */

enum { OVERWRITES = 100 };
#define DISK_BYTES_MAX ((uint64_t)300 << 20) /* of 600 MiB written */

static uint64_t data_bytes(const struct server *server)
{
    struct stat file;
    char path[128];
    snprintf(path, sizeof path, "%s/shard-0/data.mdb", server->db_path);
    CHECK(stat(path, &file) == 0);
    return (uint64_t)file.st_blocks * 512;
}

Test(memory, large_values_overwritten_without_a_pause_are_swept)
{
    struct server *server = server_start((struct server_opts){.shards = 1, .settings = {"COMPRESSION_LEVEL=0"}});
    struct client *client = client_new(server, HTTP_2);
    uint8_t *body = kv_alloc(LARGE_BYTES);
    for (unsigned i = 0; i < OVERWRITES; i++) {
        fill(body, LARGE_BYTES, i);
        const struct response *response = client_put(client, "/large", kv_slice(body, LARGE_BYTES));
        CHECK(response->status == 200 || response->status == 201, "%ld", response->status);
    }
    uint64_t bytes = data_bytes(server);
    CHECK(bytes < DISK_BYTES_MAX, "%lu bytes on the disk for a value of %d", bytes, LARGE_BYTES);
    free(body);
    client_free(&client);
    server_stop(server);
    CHECK(server_check_files(server, 1).objects == 1);
}
