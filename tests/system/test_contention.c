/* Goal: who fights for the same keys gets on, all of them, and nobody is left holding a lock.
 * Method: 64 clients increment one counter by compare-and-set batches over several shards, without a pause, until each has succeeded
 * INCREMENTS_MIN times: the server answers all about equally often, and the counter ends at the number of successes; two batches over
 * the same keys in opposite order, a thousand times, all asked at once: all are answered, and the keys agree; one batch of 10,000 puts over 4 shards, read back, deleted in another one. */
#include <criterion/criterion.h>

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "batch.h"
#include "bulk.h"
#include "fate.h"
#include "../sim/random.h"
#include "kv/clock.h"
#include "kv/placement.h"

#define SHARDS 4u
#define CLIENTS 64u
#define INCREMENTS_MIN 3u
#define COUNT_MS_MAX 60000u

TestSuite(contention, .fini = harness_close, .timeout = 600);

static struct server *start(void)
{
    return server_start((struct server_opts){.shards = SHARDS, .settings = {"ROUTER_THREADS=2"}});
}

/* ---- one counter ---------------------------------------------------------------------------------------------- */

struct counting {
    struct server *server;
    atomic_bool stop;
};

struct counter_client {
    struct counting *counting;
    unsigned index;
    struct client *http;
    atomic_uint successes, collisions;
    char failure[512];
    pthread_t thread;
};

static struct kv_slice count_text(unsigned count, char space[32])
{
    snprintf(space, 32, "count %u", count);
    return kv_slice_text(space);
}

/* Its own key on the side makes the batch one of several shards. */
static const struct response *increment(struct counter_client *client, unsigned from)
{
    struct batch batch = {0};
    char old[32], new[32], own[32];
    snprintf(own, sizeof own, "contention/own/%u", client->index);
    batch_put(&batch, own, count_text(from + 1, new), false, (struct match){.kind = MATCH_NONE});
    batch_put(&batch, "contention/counter", count_text(from + 1, new), false, match_content(count_text(from, old)));
    batch_get(&batch, "contention/counter");
    const struct response *response = batch_send(client->http, &batch);
    batch_free(&batch);
    return response;
}

static bool fail(struct counter_client *client, const char *what, const struct response *response)
{
    snprintf(client->failure, sizeof client->failure, "client %u, %s: %ld %.*s %s", client->index, what,
             response->status, (int)(response->body.bytes > 100 ? 100 : response->body.bytes),
             (const char *)response->body.data, response->problem);
    return false;
}

static bool count_once(struct counter_client *client)
{
    unsigned from = 0;
    char text[32];
    const struct response *response = client_get(client->http, "/contention/counter");
    snprintf(text, sizeof text, "%.*s", (int)(response->body.bytes > 30 ? 30 : response->body.bytes),
             (const char *)response->body.data);
    if (response->status != 200 || sscanf(text, "count %u", &from) != 1)
        return fail(client, "GET", response);
    response = increment(client, from);
    if (response->status != 200 && response->status != 412)
        return fail(client, "batch", response);
    atomic_fetch_add(&client->successes, response->status == 200);
    atomic_fetch_add(&client->collisions, response->status == 412);
    return true;
}

static void *count_main(void *arg)
{
    struct counter_client *client = arg;
    while (!atomic_load(&client->counting->stop) && count_once(client))
        continue;
    return NULL;
}

/* Until the last has had its share, or somebody failed. */
static void wait_for_all(struct counter_client *clients)
{
    uint64_t until = kv_clock_ms() + COUNT_MS_MAX;
    for (unsigned i = 0; i < CLIENTS; i++) {
        while (atomic_load(&clients[i].successes) < INCREMENTS_MIN && clients[i].failure[0] == '\0') {
            CHECK(kv_clock_ms() < until, "client %u made %u increments and %u attempts in %u ms", i,
                  atomic_load(&clients[i].successes), atomic_load(&clients[i].collisions), COUNT_MS_MAX);
            sleep_ms(20);
        }
    }
}

/* Who wins a compare-and-set is chance; how often one may try is the server's doing. */
static void expect_fair(struct counter_client *clients, unsigned *sum)
{
    unsigned tries_min = UINT_MAX, tries_max = 0, worst = UINT_MAX, best = 0;
    *sum = 0;
    for (unsigned i = 0; i < CLIENTS; i++) {
        unsigned successes = atomic_load(&clients[i].successes);
        unsigned tries = successes + atomic_load(&clients[i].collisions);
        CHECK(clients[i].failure[0] == '\0', "%s", clients[i].failure);
        *sum += successes;
        worst = successes < worst ? successes : worst;
        best = successes > best ? successes : best;
        tries_min = tries < tries_min ? tries : tries_min;
        tries_max = tries > tries_max ? tries : tries_max;
    }
    fprintf(stderr, "contention: %u increments by %u clients, the worst made %u, the best %u; %u to %u tries each\n",
            *sum, CLIENTS, worst, best, tries_min, tries_max);
    CHECK(tries_min * 3 >= tries_max, "one client was answered %u times, another one %u times", tries_min, tries_max);
}

Test(contention, of_64_clients_for_one_counter_lets_all_progress)
{
    struct counting counting = {.server = start()};
    struct counter_client *clients = kv_alloc_zero(CLIENTS, sizeof *clients);
    struct client *http = client_new(counting.server, HTTP_2);
    char space[32];
    unsigned sum;
    CHECK(client_put(http, "/contention/counter", count_text(0, space))->status == 201);
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i] =
            (struct counter_client){.counting = &counting, .index = i, .http = client_new(counting.server, HTTP_2)};
        CHECK(pthread_create(&clients[i].thread, NULL, count_main, &clients[i]) == 0);
    }
    wait_for_all(clients);
    atomic_store(&counting.stop, true);
    for (unsigned i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
        client_free(&clients[i].http);
    }
    expect_fair(clients, &sum);
    const struct response *response = client_get(http, "/contention/counter");
    CHECK(response_body_is(response, count_text(sum, space)), "%u increments were acknowledged, the counter says %.*s",
          sum, (int)response->body.bytes, (const char *)response->body.data);
    client_free(&http);
    free(clients);
}

/* ---- opposite orders ------------------------------------------------------------------------------------------ */

#define PAIRS 1000u
#define ROPE 6u /* keys */

#define PULLERS 20u /* connections with 100 streams each */
#define PULLS (2 * PAIRS / PULLERS)

struct puller {
    struct server *server;
    struct batch batches[PULLS];
    unsigned answered;
    char failure[512];
    pthread_t thread;
};

static void rope_key(unsigned key, char out[32])
{
    snprintf(out, 32, "contention/rope/%u", key);
}

/* Every batch writes its own number to all keys: upwards the even ones, downwards the odd ones. */
static void make_pull(struct batch *batch, unsigned number)
{
    char key[32], text[32];
    snprintf(text, sizeof text, "pull %u", number);
    for (unsigned i = 0; i < ROPE; i++) {
        rope_key(number % 2 == 0 ? i : ROPE - 1 - i, key);
        batch_put(batch, key, kv_slice_text(text), false, (struct match){.kind = MATCH_NONE});
    }
    batch_body(batch);
}

static void ask_pull(void *arg, size_t i, struct request *out)
{
    struct puller *puller = arg;
    *out = (struct request){.method = "POST",
                            .target = "/batch",
                            .body = kv_buf_peek(&puller->batches[i].text),
                            .has_body = true,
                            .headers = {"Content-Type: application/json"}};
}

static void on_pulled(void *arg, size_t i, const struct response *response)
{
    struct puller *puller = arg;
    puller->answered += response->status == 200;
    if (response->status != 200 && puller->failure[0] == '\0')
        snprintf(puller->failure, sizeof puller->failure, "batch %zu: %ld %.*s %s", i, response->status,
                 (int)(response->body.bytes > 100 ? 100 : response->body.bytes), (const char *)response->body.data,
                 response->problem);
}

static void expect_one_winner(struct server *server)
{
    struct client *client = client_new(server, HTTP_2);
    char first[32] = "", target[33] = "/";
    unsigned shards = 0;
    for (unsigned i = 0; i < ROPE; i++) {
        rope_key(i, target + 1);
        shards |= 1u << kv_shard_of(kv_slice_text(target + 1), SHARDS);
        const struct response *response = client_get(client, target);
        CHECK(response->status == 200 && response->body.bytes < sizeof first, "%s: %ld", target, response->status);
        if (i == 0)
            snprintf(first, sizeof first, "%.*s", (int)response->body.bytes, (const char *)response->body.data);
        CHECK(response_body_is(response, kv_slice_text(first)), "key 0 says %s, key %u %.*s", first, i,
              (int)response->body.bytes, (const char *)response->body.data);
        CHECK(response_header_is(response, "X-Refs", "6"), "%s: one content, six keys", target);
    }
    CHECK((shards & (shards - 1)) != 0, "all keys are on one shard: that shows nothing");
    client_free(&client);
}

static void *pull_main(void *arg)
{
    struct puller *puller = arg;
    if (!bulk_run(&(struct bulk){.server = puller->server,
                                 .http = HTTP_2,
                                 .count = PULLS,
                                 .in_flight = PULLS,
                                 .make = ask_pull,
                                 .done = on_pulled,
                                 .arg = puller}))
        snprintf(puller->failure, sizeof puller->failure, "libcurl failed");
    return NULL;
}

Test(contention, of_batches_in_opposite_order_is_no_deadlock)
{
    struct server *server = start();
    struct puller *pullers = kv_alloc_zero(PULLERS, sizeof *pullers);
    uint64_t begin = kv_clock_ms();
    for (unsigned i = 0; i < PULLERS; i++) {
        pullers[i].server = server;
        for (unsigned pull = 0; pull < PULLS; pull++)
            make_pull(&pullers[i].batches[pull], i * PULLS + pull);
        CHECK(pthread_create(&pullers[i].thread, NULL, pull_main, &pullers[i]) == 0);
    }
    for (unsigned i = 0; i < PULLERS; i++) {
        pthread_join(pullers[i].thread, NULL);
        CHECK(pullers[i].answered == PULLS, "%u of %u were answered; %s", pullers[i].answered, PULLS,
              pullers[i].failure);
        for (unsigned pull = 0; pull < PULLS; pull++)
            batch_free(&pullers[i].batches[pull]);
    }
    fprintf(stderr, "contention: %u batches of %u keys in opposite orders took %llu ms\n", 2 * PAIRS, ROPE,
            (unsigned long long)(kv_clock_ms() - begin));
    expect_one_winner(server);
    free(pullers);
}

/* ---- ten thousand --------------------------------------------------------------------------------------------- */

#define MANY 10000u

static void many_key(unsigned key, char out[32])
{
    snprintf(out, 32, "contention/many/%05u", key);
}

static void send_many(struct server *server, bool put)
{
    struct client *client = client_new(server, HTTP_2);
    struct batch batch = {0};
    struct batch_results results;
    char key[32], text[32];
    for (unsigned i = 0; i < MANY; i++) {
        many_key(i, key);
        snprintf(text, sizeof text, "content %u", i % 7000); /* 3,000 of them twice */
        if (put)
            batch_put(&batch, key, kv_slice_text(text), false, (struct match){.kind = MATCH_ABSENT});
        else
            batch_delete(&batch, key, (struct match){.kind = MATCH_ANY});
    }
    uint64_t begin = kv_clock_ms();
    const struct response *response = batch_send(client, &batch);
    CHECK(batch_results_read(response, MANY, &results), "%ld: %.*s %s", response->status,
          (int)(response->body.bytes > 200 ? 200 : response->body.bytes), (const char *)response->body.data,
          response->problem);
    fprintf(stderr, "contention: a batch of %u operations over %u shards took %llu ms\n", MANY, SHARDS,
            (unsigned long long)(kv_clock_ms() - begin));
    for (unsigned i = 0; i < MANY; i++)
        CHECK(results.results[i].found != put, "operation %u", i);
    batch_results_free(&results);
    batch_free(&batch);
    client_free(&client);
}

static void check_one(struct client *client, unsigned i)
{
    char target[33] = "/", text[32];
    many_key(i, target + 1);
    snprintf(text, sizeof text, "content %u", i % 7000);
    CHECK(response_body_is(client_get(client, target), kv_slice_text(text)), "%s", target);
    CHECK(response_header_is(client_get(client, target), "X-Refs", i % 7000 < MANY - 7000 ? "2" : "1"), "%s", target);
}

static void expect_files(struct server *server, uint64_t keys, uint64_t objects)
{
    server_stop(server);
    struct store_counts counts = server_check_files(server, SHARDS);
    CHECK(counts.keys == keys && counts.objects == objects, "%llu keys, %llu objects", (unsigned long long)counts.keys,
          (unsigned long long)counts.objects);
}

Test(contention, a_batch_of_10000_puts_over_4_shards)
{
    struct server *server = start();
    send_many(server, true);
    struct client *client = client_new(server, HTTP_2);
    for (unsigned i = 0; i < MANY; i += 97)
        check_one(client, i);
    client_free(&client);
    expect_files(server, MANY, 7000);
    server_spawn(server);
    server_wait_ready(server);
    send_many(server, false);
    expect_files(server, 0, 0);
}
