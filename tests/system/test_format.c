/* Goal: a store that was made by a build of format 1, which kept small contents in `blobs`, is taken over with all it has; what is
 * written to it from then on lies in the new form beside the old one.
 * Method: format-1.tar.gz, two shards made by revision d5be993, killed with records in the journals: below `applied/` what was in
 * LMDB, below `journaled/` what was not. Keys of `yes KEY | head -c N` for N = 0, 1, 100, 256, 257, 5000, one value that both have,
 * one key that was deleted. */
#include <stdio.h>

#include "client.h"

#define SHARDS 2u
#define VALUE_BYTES_MAX 5000u

TestSuite(format, .fini = harness_close, .timeout = 600);

static const char *const folders[] = {"applied", "journaled"};
static const size_t sizes[] = {0, 1, 100, 256, 257, VALUE_BYTES_MAX};
enum { FOLDERS = sizeof folders / sizeof *folders, SIZES = sizeof sizes / sizeof *sizes };

static void unpack(const struct server *server)
{
    char command[512];
    snprintf(command, sizeof command, "mkdir -m 700 %s && tar -C %s -xzf %s/tests/system/format-1.tar.gz",
             server->db_path, server->db_path, KV_SOURCE_FOLDER);
    struct outcome done = run((const char *const[]){"sh", "-c", command, NULL}, (struct run_opts){0});
    CHECK(done.exit_code == 0, "%s: %d", command, done.exit_code);
    outcome_free(&done);
}

static struct kv_slice value_of(const char *folder, size_t bytes, char space[VALUE_BYTES_MAX])
{
    char line[32];
    size_t length = (size_t)snprintf(line, sizeof line, "%s %zu\n", folder, bytes);
    for (size_t i = 0; i < bytes; i++)
        space[i] = line[i % length];
    return kv_slice(space, bytes);
}

static void expect(struct client *client, const char *target, struct kv_slice value, const char *refs)
{
    const struct response *response = client_get(client, target);
    CHECK(response->status == 200 && response_body_is(response, value), "GET %s: %ld, %zu bytes", target,
          response->status, response->body.bytes);
    CHECK(response_header_is(response, "X-Refs", refs), "%s has not %s references", target, refs);
}

static void expect_values(struct client *client, const char *refs, const char *empty_refs)
{
    char target[64], space[VALUE_BYTES_MAX];
    for (unsigned f = 0; f < FOLDERS; f++)
        for (unsigned i = 0; i < SIZES; i++) {
            snprintf(target, sizeof target, "/%s/%zu", folders[f], sizes[i]);
            expect(client, target, value_of(folders[f], sizes[i], space), i == 0 ? empty_refs : refs);
        }
}

static void put(struct client *client, const char *target, struct kv_slice value, long status)
{
    const struct response *response = client_put(client, target, value);
    CHECK(response->status == status, "PUT %s: %ld", target, response->status);
}

/* Each value once more, under another name: old rows with another count, and beside them new ones. */
static void copy_values(struct client *client)
{
    char target[64], space[VALUE_BYTES_MAX];
    for (unsigned f = 0; f < FOLDERS; f++)
        for (unsigned i = 0; i < SIZES; i++) {
            snprintf(target, sizeof target, "/copy/%s/%zu", folders[f], sizes[i]);
            put(client, target, value_of(folders[f], sizes[i], space), 201);
        }
    put(client, "/new", kv_slice_text("a new small value"), 201);
}

static void expect_copied(struct client *client)
{
    expect_values(client, "2", "4");
    expect(client, "/new", kv_slice_text("a new small value"), "1");
    CHECK(client_get(client, "/applied/gone")->status == 404);
    CHECK(client_get(client, "/journaled/gone")->status == 404);
}

static void delete_all(struct client *client)
{
    char target[64];
    for (unsigned f = 0; f < FOLDERS; f++)
        for (unsigned i = 0; i < SIZES; i++)
            for (unsigned copy = 0; copy < 2; copy++) {
                snprintf(target, sizeof target, "/%s%s/%zu", copy ? "copy/" : "", folders[f], sizes[i]);
                CHECK(client_delete(client, target)->status == 204, "DELETE %s", target);
            }
}

static struct store_counts expect_counts(struct server *server, uint64_t keys, uint64_t objects)
{
    struct store_counts counts = server_check_files(server, SHARDS);
    CHECK(counts.keys == keys && counts.objects == objects, "%llu keys, %llu objects", (unsigned long long)counts.keys,
          (unsigned long long)counts.objects);
    return counts;
}

Test(format, a_store_of_format_1_goes_on)
{
    struct server *server = server_new((struct server_opts){.shards = SHARDS, .settings = {"CACHE_BYTES=0"}});
    unpack(server);
    CHECK(expect_counts(server, 14, 12).journal_records > 0, "nothing is left to replay");
    server_spawn(server);
    server_wait_ready(server);
    struct client *client = client_new(server, HTTP_2);
    struct kv_slice same = kv_slice_text("same\nsame\nsame\nsame\nsame\nsame\nsame\nsame\nsame\nsame\n");
    expect(client, "/applied/same", same, "2");
    expect_values(client, "1", "2");
    copy_values(client);
    expect_copied(client);
    server_stop(server);
    expect_counts(server, 27, 13);
    server_spawn(server);
    server_wait_ready(server);
    expect_copied(client);
    delete_all(client);
    put(client, "/applied/same", kv_slice_text("another"), 200);
    expect(client, "/journaled/same", same, "1");
    server_stop(server);
    expect_counts(server, 3, 3);
    client_free(&client);
}
