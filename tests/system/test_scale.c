/* Goal: what a page of keys, a total and /metrics cost grows with what they return, not with the number of keys.
 * Method: two stores side by side, one with 5,000 keys and one with many; the same requests go to both in turns, so that whatever
 * else the machine does hits both alike; the medians are compared. A fifth of the keys hides behind one delimiter.
 * The campaign of 5 million keys: tests/scale, which sets KV_SCALE_KEYS (keys), KV_SCALE_COPIES (keys that share a content) and
 * KV_SCALE_RATIO (allowed ratio of the medians). Without them 200,000 keys and a ratio that only something that grows with the
 * keys exceeds: forty times the keys. */
#include <criterion/criterion.h>

#include <jansson.h>
#include <stdlib.h>

#include "client.h"
#include "kv/clock.h"

#define SMALL_KEYS 5000u
#define BATCH_OPS 10000u
#define ROUNDS 41u
#define SLACK_NS 200000u /* below it a ratio says nothing */

TestSuite(scale, .fini = harness_close, .timeout = 3600);

static uint64_t setting(const char *name, uint64_t standard)
{
    const char *value = getenv(name);
    return value == NULL || *value == '\0' ? standard : strtoull(value, NULL, 10);
}

struct store {
    struct server *server;
    struct client *client;
    uint64_t keys;
    uint64_t hidden; /* of them, behind "hidden/" */
};

/* ---- filling ------------------------------------------------------------------------------------------------------ */

/* Key number `i` in byte order, counted from the start: "hidden/…" first, then "key-…". */
static void key_at(const struct store *store, uint64_t i, char out[32])
{
    if (i < store->hidden)
        snprintf(out, 32, "hidden/%09lu", i);
    else
        snprintf(out, 32, "key-%09lu", i);
}

static void add_put(const struct store *store, struct kv_buf *body, uint64_t i, uint64_t copies)
{
    char key[32], text[160];
    key_at(store, i, key);
    int bytes = snprintf(text, sizeof text, "%c{\"op\":\"put\",\"key\":\"%s\",\"value\":\"content %lu\"}",
                         body->bytes == 0 ? '[' : ',', key, i / copies);
    kv_buf_append(body, kv_slice(text, (size_t)bytes));
}

static void send_batch(struct store *store, struct kv_buf *body)
{
    kv_buf_append(body, kv_slice("]", 1));
    struct request request = {.method = "POST", .target = "/batch", .body = kv_buf_peek(body), .has_body = true};
    const struct response *response = client_send(store->client, &request);
    while (response->status == 429) { /* the applier is behind: that is what the answer is for */
        sleep_ms(100);
        response = client_send(store->client, &request);
    }
    CHECK(response->status == 200, "batch: %ld %s", response->status, response->problem);
    body->bytes = 0;
}

/* In a scattered order, as keys come in life: 7,368,787 is a prime, so every number comes once. */
static void fill(struct store *store)
{
    uint64_t copies = setting("KV_SCALE_COPIES", 2), began_ms = kv_clock_ms();
    struct kv_buf body = {0};
    for (uint64_t i = 0; i < store->keys; i++) {
        add_put(store, &body, i * 7368787u % store->keys, copies);
        if ((i + 1) % BATCH_OPS == 0 || i + 1 == store->keys)
            send_batch(store, &body);
        if ((i + 1) % 500000 == 0)
            fprintf(stderr, "scale: %lu keys after %.1f s\n", i + 1, (double)(kv_clock_ms() - began_ms) / 1e3);
    }
    kv_buf_free(&body);
    double seconds = (double)(kv_clock_ms() - began_ms) / 1e3;
    fprintf(stderr, "scale: %lu keys stored in %.1f s, %.0f a second\n", store->keys, seconds,
            (double)store->keys / (seconds + 0.001));
}

static struct store store_make(uint64_t keys)
{
    struct store store = {.server = server_start((struct server_opts){.shards = 2}), .keys = keys, .hidden = keys / 5};
    store.client = client_new(store.server, HTTP_1);
    fill(&store);
    return store;
}

/* ---- asking ------------------------------------------------------------------------------------------------------- */

struct question {
    const char *name;
    unsigned percent; /* of the keys that stand before the page; above 100: no `after` */
    const char *rest; /* of the target */
    size_t expected;  /* keys and prefixes; 0: not a listing */
};

static const struct question questions[] = {
    {"page of 100, beginning", 101, "/keys?limit=100", 100},
    {"page of 100, middle", 50, "/keys?limit=100", 100},
    {"page of 100, end", 95, "/keys?limit=100", 100},
    {"page of 1,000, middle", 50, "/keys?limit=1000", 1000},
    {"page behind a prefix", 101, "/keys?limit=100&prefix=hidden/", 100},
    {"page that hides a fifth of the keys", 101, "/keys?limit=100&delimiter=/", 100},
    {"total (page of 1)", 101, "/keys?limit=1", 1},
    {"/metrics", 101, "/metrics", 0},
};
enum { QUESTIONS = sizeof questions / sizeof *questions };

static void check_page(const struct question *question, const struct store *store, const struct response *response)
{
    json_t *page = json_loadb((const char *)response->body.data, response->body.bytes, 0, NULL);
    size_t found = json_array_size(json_object_get(page, "keys")) + json_array_size(json_object_get(page, "prefixes"));
    CHECK(page != NULL && found == question->expected, "%s: %zu entries", question->name, found);
    json_t *total = json_object_get(page, "total");
    CHECK(total == NULL || (uint64_t)json_integer_value(total) == store->keys, "%s: total %lld", question->name,
          json_integer_value(total));
    json_decref(page);
}

static uint64_t ask(const struct question *question, struct store *store)
{
    char target[160], key[32];
    key_at(store, store->keys * question->percent / 100, key);
    snprintf(target, sizeof target, question->percent > 100 ? "%s" : "%s&after=%s", question->rest, key);
    uint64_t began_ns = kv_clock_ns();
    const struct response *response = client_get(store->client, target);
    uint64_t took_ns = kv_clock_ns() - began_ns;
    CHECK(response->status == 200, "%s: %ld %s", target, response->status, response->problem);
    if (question->expected > 0)
        check_page(question, store, response);
    return took_ns;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static void compare(const struct question *question, struct store *small, struct store *large, double ratio_max)
{
    uint64_t of_small[ROUNDS], of_large[ROUNDS];
    for (unsigned i = 0; i < ROUNDS; i++) {
        of_small[i] = ask(question, small);
        of_large[i] = ask(question, large);
    }
    qsort(of_small, ROUNDS, sizeof *of_small, compare_numbers);
    qsort(of_large, ROUNDS, sizeof *of_large, compare_numbers);
    uint64_t median_small = of_small[ROUNDS / 2], median_large = of_large[ROUNDS / 2];
    fprintf(stderr, "scale: %-36s %8.3f ms of %lu keys, %8.3f ms of %lu, ratio %.2f\n", question->name,
            (double)median_small / 1e6, small->keys, (double)median_large / 1e6, large->keys,
            (double)median_large / (double)median_small);
    CHECK((double)median_large <= ratio_max * (double)median_small + SLACK_NS, "%s: %lu ns of many keys, %lu of few",
          question->name, median_large, median_small);
}

/* Deletes wait in memory, and a listing has to pass over them until they are applied: never the loop for long. */
static void delete_hidden(struct store *store)
{
    struct kv_buf body = {0};
    uint64_t slowest_ns = 0;
    struct question first = {"first page during deletes", 101, "/keys?limit=1&prefix=hidden/&after=hidden/", 0};
    for (uint64_t i = 0; i < store->hidden; i++) {
        char key[32], text[96];
        key_at(store, i, key);
        int bytes =
            snprintf(text, sizeof text, "%c{\"op\":\"delete\",\"key\":\"%s\"}", body.bytes == 0 ? '[' : ',', key);
        kv_buf_append(&body, kv_slice(text, (size_t)bytes));
        if ((i + 1) % BATCH_OPS != 0 && i + 1 != store->hidden)
            continue;
        send_batch(store, &body);
        uint64_t took_ns = ask(&first, store);
        slowest_ns = took_ns > slowest_ns ? took_ns : slowest_ns;
    }
    kv_buf_free(&body);
    fprintf(stderr, "scale: slowest page behind %lu deletes: %.3f ms\n", store->hidden, (double)slowest_ns / 1e6);
}

Test(scale, a_page_costs_what_it_returns)
{
    struct store small = store_make(SMALL_KEYS);
    struct store large = store_make(setting("KV_SCALE_KEYS", 200000));
    double ratio_max = (double)setting("KV_SCALE_RATIO", 20);
    sleep_ms(2000); /* what is in memory is applied */
    for (unsigned i = 0; i < QUESTIONS; i++)
        compare(&questions[i], &small, &large, ratio_max);
    delete_hidden(&large);
    client_free(&small.client);
    client_free(&large.client);
    server_stop(large.server);
    server_stop(small.server);
}
