/* Goal: one content is one object however many keys hold it and on whichever shards they live, and it goes with its last key.
 * Method: the same bytes under 100 keys on 4 shards (so that most keys live elsewhere than the object): X-Refs and X-Deduplicated of
 * each; overwriting and deleting, down to zero; the files are counted with `kv-shard --check` after each stage. A small content
 * travels inside the write, one of 200 KB of noise is staged first: both ways are taken. */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "client.h"

#define KEYS 100u
#define SHARDS 4u

TestSuite(dedup, .fini = harness_close, .timeout = 600);

static const char *key_target(unsigned i)
{
    static char target[32];
    snprintf(target, sizeof target, "/key-%03u", i);
    return target;
}

static void expect_counts(struct server *server, uint64_t keys, uint64_t objects, uint64_t stored_bytes_max)
{
    server_stop(server);
    struct store_counts counts = server_check_files(server, SHARDS);
    CHECK(counts.keys == keys, "%llu keys, expected %llu", (unsigned long long)counts.keys, (unsigned long long)keys);
    CHECK(counts.objects == objects, "%llu objects, expected %llu", (unsigned long long)counts.objects,
          (unsigned long long)objects);
    CHECK(counts.stored_bytes <= stored_bytes_max && (counts.stored_bytes > 0) == (objects > 0), "%llu bytes stored",
          (unsigned long long)counts.stored_bytes);
    server_spawn(server);
    server_wait_ready(server);
}

static void put(struct client *client, const char *target, struct kv_slice value, long status, bool deduplicated)
{
    char space[HEADER_BYTES];
    const struct response *response = client_put(client, target, value);
    CHECK(response->status == status, "PUT %s: %ld %s", target, response->status, response->problem);
    CHECK(response_header_is(response, "X-Deduplicated", deduplicated ? "true" : "false"), "PUT %s: X-Deduplicated: %s",
          target, response_header(response, "X-Deduplicated", space));
}

static void expect_value(struct client *client, const char *target, struct kv_slice value, unsigned refs)
{
    char expected[16], space[HEADER_BYTES];
    snprintf(expected, sizeof expected, "%u", refs);
    const struct response *response = client_head(client, target);
    CHECK(response->status == 200 && response_header_is(response, "X-Refs", expected),
          "HEAD %s: %ld, X-Refs: %s, not %s", target, response->status, response_header(response, "X-Refs", space),
          expected);
    response = client_get(client, target);
    CHECK(response->status == 200 && response_body_is(response, value), "GET %s: %ld", target, response->status);
    CHECK(response_header_is(response, "X-Refs", expected), "GET %s: X-Refs: %s, not %s", target,
          response_header(response, "X-Refs", space), expected);
}

static void delete (struct client *client, const char *target, long status)
{
    const struct response *response = client_delete(client, target);
    CHECK(response->status == status, "DELETE %s: %ld %s", target, response->status, response->problem);
}

static void share_and_free(struct kv_slice value, struct kv_slice other)
{
    struct server *server = server_start((struct server_opts){.shards = SHARDS});
    struct client *client = client_new(server, HTTP_2);
    for (unsigned i = 0; i < KEYS; i++)
        put(client, key_target(i), value, 201, i > 0);
    for (unsigned i = 0; i < KEYS; i++)
        expect_value(client, key_target(i), value, KEYS);
    expect_counts(server, KEYS, 1, value.bytes + 4096);

    put(client, key_target(0), value, 200, true); /* the same again changes no count */
    expect_value(client, key_target(0), value, KEYS);
    for (unsigned i = 0; i < KEYS / 2; i++) { /* half of them move to another content */
        put(client, key_target(i), other, 200, i > 0);
        expect_value(client, key_target(i), other, i + 1);
        expect_value(client, key_target(KEYS - 1), value, KEYS - 1 - i);
    }
    expect_counts(server, KEYS, 2, value.bytes + other.bytes + 8192);

    for (unsigned i = KEYS / 2; i < KEYS; i++)
        delete (client, key_target(i), 204);
    delete (client, key_target(KEYS - 1), 404);
    expect_counts(server, KEYS / 2, 1, other.bytes + 4096);
    put(client, "/again", value, 201, false); /* it had gone: not deduplicated */
    expect_value(client, "/again", value, 1);
    put(client, "/again", other, 200, true);
    delete (client, "/again", 204);
    for (unsigned i = 0; i < KEYS / 2; i++)
        delete (client, key_target(i), 204);
    expect_counts(server, 0, 0, 0);
    client_free(&client);
    server_stop(server);
}

Test(dedup, small_contents)
{
    share_and_free(kv_slice_text("one content, a hundred keys"), kv_slice_text("another content"));
}

Test(dedup, contents_that_are_staged)
{
    static uint8_t noise[2][200000];
    srandom(1);
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i / sizeof noise[0]][i % sizeof noise[0]] = (uint8_t)(random() >> 7);
    share_and_free(kv_slice(noise[0], sizeof noise[0]), kv_slice(noise[1], sizeof noise[1]));
}

Test(dedup, the_empty_content)
{
    struct server *server = server_start((struct server_opts){.shards = SHARDS});
    struct client *client = client_new(server, HTTP_2);
    for (unsigned i = 0; i < 10; i++)
        put(client, key_target(i), kv_slice(NULL, 0), 201, i > 0);
    for (unsigned i = 0; i < 10; i++)
        expect_value(client, key_target(i), kv_slice(NULL, 0), 10);
    for (unsigned i = 0; i < 10; i++)
        delete (client, key_target(i), 204);
    expect_counts(server, 0, 0, 0);
    client_free(&client);
    server_stop(server);
}
