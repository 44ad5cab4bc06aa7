/* Goal: a kill while a large generation is half in LMDB loses nothing and leaves nothing twice, however often it comes.
 * Method: with the smallest OVERLAY_BYTES a generation of some hundred rows is large (store_bound), once the tables have more pages
 * than that. Batches give every key a new value, and as soon as a shard has a file `redo` everything is killed with SIGKILL. Where the
 * file is still there, one shard at least was in the midst of it: the files are checked as they lie, the store starts again and goes
 * on. In the end each key has what was acknowledged last, and keys and objects are as many as that makes. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "batch.h"

enum { SHARDS = 2, KEYS = 20000, BATCH_KEYS = 200, HALVES = 4, ROUNDS_MAX = 40, VALUE_BYTES = 100, KEY_BYTES = 32 };

TestSuite(redo, .fini = harness_close, .timeout = 300);

struct store {
    struct server *server;
    struct client *client;
    unsigned versions[KEYS]; /* of each key's value, as acknowledged */
    size_t next;             /* key of the next batch */
    unsigned version;
};

static void key_of(size_t i, char out[KEY_BYTES])
{
    snprintf(out, KEY_BYTES, "k/%05zu", i);
}

/* No two keys or versions have the same. */
static struct kv_slice value_of(size_t i, unsigned version, char out[VALUE_BYTES + 1])
{
    snprintf(out, VALUE_BYTES + 1, "%0*zu", VALUE_BYTES, i * 1000 + version);
    return kv_slice(out, VALUE_BYTES);
}

static void write_batch(struct store *store)
{
    struct batch batch = {0};
    char key[KEY_BYTES], value[VALUE_BYTES + 1];
    store->version += store->next == 0;
    for (size_t i = store->next; i < store->next + BATCH_KEYS; i++) {
        key_of(i, key);
        batch_put(&batch, key, value_of(i, store->version, value), false, (struct match){MATCH_NONE, ""});
    }
    const struct response *response = batch_send(store->client, &batch);
    CHECK(response->status == 200, "batch: %ld %s", response->status, response->problem);
    for (size_t i = store->next; i < store->next + BATCH_KEYS; i++)
        store->versions[i] = store->version;
    store->next = (store->next + BATCH_KEYS) % KEYS;
    batch_free(&batch);
}

static void expect_batch(struct store *store, size_t from)
{
    struct batch batch = {0};
    struct batch_results results;
    char key[KEY_BYTES], value[VALUE_BYTES + 1];
    for (size_t i = from; i < from + BATCH_KEYS; i++) {
        key_of(i, key);
        batch_get(&batch, key);
    }
    bool read = batch_results_read(batch_send(store->client, &batch), BATCH_KEYS, &results);
    CHECK(read, "no answer to a batch of gets");
    for (size_t i = from; i < from + BATCH_KEYS; i++) {
        const struct batch_result *result = &results.results[i - from];
        struct kv_slice expected = value_of(i, store->versions[i], value);
        CHECK(result->found && kv_slice_equal(kv_buf_peek(&result->value), expected), "key %zu: %s", i,
              result->found ? "another value than was acknowledged" : "gone");
    }
    batch_results_free(&results);
    batch_free(&batch);
}

static bool is_half(const struct store *store)
{
    char path[128];
    for (unsigned shard = 0; shard < SHARDS; shard++) {
        snprintf(path, sizeof path, "%s/shard-%u/redo", store->server->db_path, shard);
        if (access(path, F_OK) == 0)
            return true;
    }
    return false;
}

static void stop_client(struct store *store)
{
    client_free(&store->client);
}

static void start_again(struct store *store)
{
    server_spawn(store->server);
    server_wait_ready(store->server);
    store->client = client_new(store->server, HTTP_2);
}

/* True: it was in the midst of a generation. */
static bool kill_in_the_midst(struct store *store)
{
    for (unsigned batches = 0; batches < 4 * KEYS / BATCH_KEYS && !is_half(store); batches++)
        write_batch(store);
    stop_client(store);
    server_kill(store->server);
    bool half = is_half(store);
    server_check_files(store->server, SHARDS);
    start_again(store);
    return half;
}

Test(redo, kills_in_the_midst_of_large_generations_lose_nothing)
{
    struct store *store = kv_alloc_zero(1, sizeof *store);
    unsigned halves = 0;
    store->server = server_start((struct server_opts){.shards = SHARDS, .settings = {"OVERLAY_BYTES=1M"}});
    store->client = client_new(store->server, HTTP_2);
    do
        write_batch(store);
    while (store->next != 0);
    for (unsigned round = 0; round < ROUNDS_MAX && halves < HALVES; round++)
        halves += kill_in_the_midst(store);
    CHECK(halves == HALVES, "%u kills of %u left a generation half applied", halves, ROUNDS_MAX);
    for (size_t from = 0; from < KEYS; from += BATCH_KEYS)
        expect_batch(store, from);
    stop_client(store);
    server_stop(store->server);
    struct store_counts counts = server_check_files(store->server, SHARDS);
    CHECK(counts.keys == KEYS && counts.objects == KEYS, "%llu keys and %llu objects of %u",
          (unsigned long long)counts.keys, (unsigned long long)counts.objects, KEYS);
    free(store);
}
