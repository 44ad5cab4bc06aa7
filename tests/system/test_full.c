/* Goal: a full disk and a full map refuse writes with 507 and nothing else happens: no crash, reads and deletes go on, what was
 * acknowledged stays, and writes work again when there is room.
 * Method: a filesystem of 64 MiB of its own (a mount in a namespace that ends with the test; skipped where that is not allowed), and
 * MAP_SIZE=16M on a roomy one; filled to the brim with staged contents, then with small ones; then all but some is deleted; the check of
 * all data in the end. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "client.h"
#include "disk.h"
#include "kv/clock.h"
#include "stream.h"

TestSuite(full, .fini = harness_close, .timeout = 600);

enum { KEPT = 100, FILL_MAX = 20000, LARGE_BYTES = 300000, SMALL_BYTES = 3000, REFUSALS = 5 };

/* A stream as a value. */
static struct kv_buf value_of(uint64_t seed, size_t bytes)
{
    struct stream stream = {STREAM_RANDOM, seed, bytes};
    struct kv_buf value = {0};
    stream_fill(&stream, 0, kv_buf_reserve(&value, bytes), bytes);
    value.bytes = bytes;
    return value;
}

static const char *name_of(const char *folder, unsigned number)
{
    static char name[64];
    snprintf(name, sizeof name, "/%s/%u", folder, number);
    return name;
}

static long put(struct client *client, const char *folder, unsigned number, uint64_t seed, size_t bytes)
{
    struct kv_buf value = value_of(seed, bytes);
    const struct response *response = client_put(client, name_of(folder, number), kv_buf_peek(&value));
    long status = response->status;
    CHECK(status == 200 || status == 201 || status == 507, "PUT %s/%u: %ld %s %.*s", folder, number, status,
          response->problem, (int)response->body.bytes, (const char *)response->body.data);
    if (status == 507)
        CHECK(strncmp((const char *)response->body.data, "Error: ", 7) == 0, "%.*s", (int)response->body.bytes,
              (const char *)response->body.data);
    kv_buf_free(&value);
    return status;
}

static void expect_value(struct client *client, const char *folder, unsigned number, uint64_t seed, size_t bytes)
{
    struct kv_buf value = value_of(seed, bytes);
    const struct response *response = client_get(client, name_of(folder, number));
    CHECK(response->status == 200 && response_body_is(response, kv_buf_peek(&value)), "GET %s/%u: %ld %s", folder,
          number, response->status, response->problem);
    kv_buf_free(&value);
}

/* Until some in a row were refused; a refusal may end when rows were applied meanwhile. Returns how many are there. */
static unsigned fill(struct client *client, const char *folder, size_t bytes)
{
    unsigned count = 0, refusals = 0;
    while (refusals < REFUSALS && count < FILL_MAX) {
        if (put(client, folder, count, count + bytes, bytes) == 507)
            refusals++;
        else
            refusals = 0, count++;
    }
    CHECK(refusals == REFUSALS, "%s: %u values and never full", folder, count);
    return count;
}

static void expect_all_there(struct client *client, const char *folder, unsigned count, size_t bytes)
{
    for (unsigned i = 0; i < count; i += 1 + count / 50)
        expect_value(client, folder, i, i + bytes, bytes);
}

static void delete_all(struct client *client, const char *folder, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const struct response *response = client_delete(client, name_of(folder, i));
        CHECK(response->status == 204, "DELETE %s/%u of %u: %ld %s %.*s", folder, i, count, response->status,
              response->problem, (int)response->body.bytes, (const char *)response->body.data);
    }
}

/* Deleted contents are swept by and by: room for one is not yet room for the next. */
static void put_when_there_is_room(struct client *client, const char *what, unsigned number)
{
    uint64_t until_ms = kv_clock_ms() + 30000;
    long status = put(client, what, number, number + LARGE_BYTES, LARGE_BYTES);
    while (status == 507 && kv_clock_ms() < until_ms) {
        sleep_ms(50);
        status = put(client, what, number, number + LARGE_BYTES, LARGE_BYTES);
    }
    CHECK(status == 201 || status == 200, "no room after everything was deleted: %ld", status);
}

static void run_full_and_back(struct server *server, unsigned shard_count)
{
    struct client *client = client_new(server, HTTP_2);
    for (unsigned i = 0; i < KEPT; i++)
        CHECK(put(client, "kept", i, i + SMALL_BYTES, SMALL_BYTES) == 201, "%u", i);
    unsigned large = fill(client, "large", LARGE_BYTES);
    unsigned small = fill(client, "small", SMALL_BYTES);
    fprintf(stderr, "%u values of %d bytes, then %u of %d\n", large, LARGE_BYTES, small, SMALL_BYTES);
    CHECK(large >= 5, "hardly anything fits");
    expect_all_there(client, "kept", KEPT, SMALL_BYTES);
    expect_all_there(client, "large", large, LARGE_BYTES);
    expect_all_there(client, "small", small, SMALL_BYTES);
    CHECK(client_get(client, name_of("small", small))->status == 404, "refused and yet there");
    delete_all(client, "large", large);
    delete_all(client, "small", small);
    CHECK(server_log_has(server, "no room is left on the disk or in MAP_SIZE"), "nobody was told");
    put_when_there_is_room(client, "again", 0);
    for (unsigned i = 0; i < 5; i++)
        put_when_there_is_room(client, "later", i);
    client_free(&client);
    server_stop(server);
    struct store_counts counts = server_check_files(server, shard_count);
    CHECK(counts.keys == KEPT + 6, "%lu keys", counts.keys);
    server_spawn(server);
    server_wait_ready(server);
    client = client_new(server, HTTP_1);
    expect_all_there(client, "kept", KEPT, SMALL_BYTES);
    expect_all_there(client, "later", 5, LARGE_BYTES);
    client_free(&client);
}

/* ---- a full disk ---------------------------------------------------------------------------------------------- */

static void run_on_small_disk(const char *kind, unsigned shards)
{
    struct server *server = server_new((struct server_opts){.shards = shards});
    if (!disk_mount(server, kind)) {
        fprintf(stderr, "SKIPPED: no %s of 64 MiB can be mounted here: %s\n", kind, strerror(errno));
        return;
    }
    server_spawn(server);
    server_wait_ready(server);
    run_full_and_back(server, shards);
    server_stop(server);
    disk_unmount(server);
}

Test(full, a_disk_of_64_mib_with_one_shard)
{
    run_on_small_disk("tmpfs", 1);
}

Test(full, a_disk_of_64_mib_with_two_shards)
{
    run_on_small_disk("tmpfs", 2);
}

Test(full, an_ext4_of_64_mib)
{
    run_on_small_disk("ext4", 1);
}

/* What deletes have freed is taken, too; then every process below the supervisor dies, and the store stops and starts. */
static void start_on_full_disk(struct server *server)
{
    struct child children[CHILDREN_MAX];
    size_t count = server_children(server, children);
    disk_fill(server, 0);
    for (size_t i = 0; i < count; i++)
        CHECK(kill(children[i].pid, SIGKILL) == 0 && processes_die_within(&children[i].pid, 1, 10000));
    server_wait_ready(server);
    server_stop(server);
    disk_fill(server, 0);
    server_spawn(server);
    server_wait_ready(server);
}

/* Others fill the disk while writes are under way. */
Test(full, a_disk_that_others_fill)
{
    struct server *server = server_new((struct server_opts){.shards = 2});
    if (!disk_mount(server, "ext4") && !disk_mount(server, "tmpfs")) {
        fprintf(stderr, "SKIPPED: nothing can be mounted here: %s\n", strerror(errno));
        return;
    }
    server_spawn(server);
    server_wait_ready(server);
    struct client *client = client_new(server, HTTP_2);
    for (unsigned i = 0; i < 40; i++)
        CHECK(put(client, "large", i, i + LARGE_BYTES, LARGE_BYTES) == 201, "%u", i);
    disk_fill(server, 0);
    unsigned large = fill(client, "more", LARGE_BYTES), small = fill(client, "small", SMALL_BYTES);
    fprintf(stderr, "on a full disk: %u values of %d bytes, %u of %d\n", large, LARGE_BYTES, small, SMALL_BYTES);
    expect_all_there(client, "large", 40, LARGE_BYTES);
    delete_all(client, "large", 10);
    sleep_ms(1500); /* what was written is tried to be applied meanwhile */
    delete_all(client, "small", small);
    expect_all_there(client, "more", large, LARGE_BYTES);
    CHECK(!server_log_has(server, " ended: "), "a process gave up");
    client_free(&client);
    start_on_full_disk(server);
    client = client_new(server, HTTP_2);
    expect_all_there(client, "more", large, LARGE_BYTES);
    CHECK(client_delete(client, name_of("large", 10))->status == 204);
    disk_empty(server);
    put_when_there_is_room(client, "again", 0);
    client_free(&client);
    server_stop(server);
    CHECK(server_check_files(server, 2).keys == 30 + large);
    disk_unmount(server);
}

/* ---- a full map ----------------------------------------------------------------------------------------------- */

Test(full, a_map_of_16_mib)
{
    run_full_and_back(server_start((struct server_opts){.shards = 1, .settings = {"MAP_SIZE=16M"}}), 1);
}
