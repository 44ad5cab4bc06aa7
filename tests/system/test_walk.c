/* Goal: listings stay right while rows move from the two generations in memory into LMDB underneath them, and with keys whose common
 * prefixes are longer than LMDB's keys may be.
 * Method: 3 shards with the smallest OVERLAY_BYTES, keys that share prefixes of 470 to 4,090 bytes. Writers put and delete keys between
 * those that stay, with contents that fill a generation in no time, and a walk by `next` goes on meanwhile, with kill -9 of a shard in
 * between. Then the writers stop, and what each knows to be there makes one sorted array: random prefix, delimiter, after and
 * offset against it, while half of the rows is still in memory. The applier's own counter proves that generations moved. */
#include <criterion/criterion.h>

#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "../sim/random.h"
#include "client.h"
#include "kv/clock.h"

#define SHARDS 3u
#define SEED 41u
#define GROUPS 8u   /* prefixes that keys share */
#define STAYING 40u /* keys of a group that stay */
#define MOVING 40u  /* keys of a group and writer that come and go */
#define WRITERS 3u
#define WALK_MS 8000u
#define QUERIES 300u
#define VALUE_BYTES 6000u
#define KEYS_MAX (GROUPS * (STAYING + WRITERS * MOVING))

static const size_t prefix_bytes[GROUPS] = {470, 500, 510, 511, 512, 1024, 4000, 4070};

TestSuite(walk, .fini = harness_close, .timeout = 600);

/* Key `i` of a group: the group's letter over and over, which is what it shares, then the number and, in every third, more. */
static struct kv_slice make_key(unsigned group, unsigned i, const char *kind)
{
    char tail[32];
    int tail_bytes = snprintf(tail, sizeof tail, "%03u%s%s", i, i % 3 == 0 ? "/" : "", kind);
    uint8_t *key = kv_alloc(prefix_bytes[group] + (size_t)tail_bytes);
    memset(key, 'a' + (int)group, prefix_bytes[group]);
    memcpy(key + prefix_bytes[group], tail, (size_t)tail_bytes);
    return kv_slice(key, prefix_bytes[group] + (size_t)tail_bytes);
}

/* ---- writers ------------------------------------------------------------------------------------------------------ */

struct writer {
    const struct server *server;
    struct random random;
    unsigned index;
    struct kv_slice keys[GROUPS * MOVING];
    bool there[GROUPS * MOVING];
    atomic_bool stop;
    unsigned long writes;
    char failure[512];
    pthread_t thread;
};

static void write_one(struct writer *writer, struct client *client)
{
    static _Thread_local uint8_t value[VALUE_BYTES]; /* noise: does not shrink */
    size_t i = (size_t)random_below(&writer->random, GROUPS * MOVING);
    bool put = random_chance(&writer->random, 600);
    for (size_t at = 0; at + 8 <= VALUE_BYTES; at += 8) {
        uint64_t noise = random_next(&writer->random);
        memcpy(value + at, &noise, 8);
    }
    char *target = target_of_key(writer->keys[i], true);
    const struct response *response =
        put ? client_put(client, target, kv_slice(value, VALUE_BYTES)) : client_delete(client, target);
    long good = put ? (writer->there[i] ? 200 : 201) : writer->there[i] ? 204 : 404;
    if (response->status != good && response->status != 429)
        snprintf(writer->failure, sizeof writer->failure, "%s: %ld, not %ld %s", put ? "PUT" : "DELETE",
                 response->status, good, response->problem);
    if (response->status == good)
        writer->there[i] = put;
    writer->writes++;
    free(target);
}

static void *write_on(void *arg)
{
    struct writer *writer = arg;
    struct client *client = client_new(writer->server, HTTP_1);
    while (!atomic_load(&writer->stop) && writer->failure[0] == '\0')
        write_one(writer, client);
    client_free(&client);
    return NULL;
}

static void writers_start(struct writer *writers, const struct server *server)
{
    for (unsigned w = 0; w < WRITERS; w++) {
        char kind[16];
        snprintf(kind, sizeof kind, "moving%u", w);
        writers[w].server = server;
        writers[w].index = w;
        writers[w].random = (struct random){SEED + w};
        for (unsigned i = 0; i < GROUPS * MOVING; i++)
            writers[w].keys[i] = make_key(i / MOVING, i % MOVING, kind);
        CHECK(pthread_create(&writers[w].thread, NULL, write_on, &writers[w]) == 0);
    }
}

static unsigned long writers_stop(struct writer *writers)
{
    unsigned long writes = 0;
    for (unsigned w = 0; w < WRITERS; w++)
        atomic_store(&writers[w].stop, true);
    for (unsigned w = 0; w < WRITERS; w++) {
        pthread_join(writers[w].thread, NULL);
        CHECK(writers[w].failure[0] == '\0', "writer %u: %s", w, writers[w].failure);
        writes += writers[w].writes;
    }
    return writes;
}

/* ---- pages -------------------------------------------------------------------------------------------------------- */

struct query {
    struct kv_slice prefix, after;
    bool delimiter;
    unsigned limit, offset;
};

static struct kv_slice text_of(const json_t *value)
{
    return value == NULL ? kv_slice(NULL, 0) : kv_slice(json_string_value(value), json_string_length(value));
}

static json_t *ask(struct client *client, const struct query *query)
{
    char *prefix = target_of_key(query->prefix, true), *after = target_of_key(query->after, true), *target = NULL;
    CHECK(asprintf(&target, "/keys?limit=%u&offset=%u%s&prefix=%s&after=%s", query->limit, query->offset,
                   query->delimiter ? "&delimiter=/" : "", prefix + 1, after + 1) > 0);
    const struct response *response = client_get(client, target);
    CHECK(response->status == 200, "GET %.60s…: %ld %s", target, response->status, response->problem);
    json_t *page = json_loadb((const char *)response->body.data, response->body.bytes, 0, NULL);
    CHECK(page != NULL, "not JSON");
    free(target);
    free(after);
    free(prefix);
    return page;
}

static int compare_slices(const void *a, const void *b)
{
    return kv_slice_compare(*(const struct kv_slice *)a, *(const struct kv_slice *)b);
}

/* Keys and prefixes of a page in order; borrowed from it. */
static size_t entries_of(const json_t *page, struct kv_slice *out)
{
    size_t count = 0, i;
    json_t *entry;
    json_array_foreach(json_object_get(page, "keys"), i, entry) out[count++] = text_of(json_object_get(entry, "key"));
    for (i = 1; i < count; i++)
        CHECK(kv_slice_compare(out[i - 1], out[i]) < 0, "keys out of order");
    json_array_foreach(json_object_get(page, "prefixes"), i, entry) out[count++] = text_of(entry);
    qsort(out, count, sizeof *out, compare_slices);
    return count;
}

/* ---- a walk ------------------------------------------------------------------------------------------------------- */

static bool stays(struct kv_slice key)
{
    return memmem(key.data, key.bytes, "moving", 6) == NULL;
}

/* Every key of `staying` (sorted) comes once, in order, and all keys ascend. */
static void walk(struct client *client, const struct kv_slice *staying, unsigned limit)
{
    struct kv_slice *entries = kv_alloc(1000 * sizeof *entries);
    struct kv_buf last = {0};
    size_t seen = 0;
    for (bool more = true; more;) {
        struct query query = {.limit = limit, .after = kv_buf_peek(&last)};
        json_t *page = ask(client, &query);
        size_t count = entries_of(page, entries);
        for (size_t i = 0; i < count; i++) {
            CHECK(last.bytes == 0 || kv_slice_compare(kv_buf_peek(&last), entries[i]) < 0, "not behind the last key");
            last.bytes = 0;
            kv_buf_append(&last, entries[i]);
            if (stays(entries[i])) {
                CHECK(seen < GROUPS * STAYING && kv_slice_equal(entries[i], staying[seen]),
                      "limit %u: key %zu of %u is "
                      "not the next that stays: …%.*s",
                      limit, seen, GROUPS * STAYING, 8, (const char *)entries[i].data + entries[i].bytes - 8);
                seen++;
            }
        }
        more = json_object_get(page, "next") != NULL;
        json_decref(page);
    }
    CHECK(seen == GROUPS * STAYING, "limit %u: %zu of %u keys seen", limit, seen, GROUPS * STAYING);
    kv_buf_free(&last);
    free(entries);
}

static void put_staying(struct client *client, struct kv_slice *staying)
{
    for (unsigned i = 0; i < GROUPS * STAYING; i++) {
        staying[i] = make_key(i / STAYING, i % STAYING, "");
        char *target = target_of_key(staying[i], true);
        CHECK(client_put(client, target, kv_slice_text(target))->status == 201);
        free(target);
    }
    qsort(staying, GROUPS * STAYING, sizeof *staying, compare_slices);
}

/* Sum of a metric over the shards. */
static double metric(struct client *client, const char *name)
{
    const struct response *response = client_get(client, "/metrics");
    char *page = strndup((const char *)response->body.data, response->body.bytes);
    double sum = 0;
    for (const char *at = page; (at = strstr(at, name)) != NULL; at += strlen(name))
        sum += at[-1] == '\n' ? strtod(strchr(at, ' '), NULL) : 0;
    free(page);
    return sum;
}

/* ---- against a sorted array --------------------------------------------------------------------------------------- */

static struct query draw_query(struct random *random, const struct kv_slice *keys, size_t count)
{
    struct query query = {.limit = (unsigned)random_between(random, 1, 60), .delimiter = random_chance(random, 500)};
    struct kv_slice from = keys[random_below(random, count)], after = keys[random_below(random, count)];
    if (random_chance(random, 300))
        query.offset = (unsigned)random_below(random, 80);
    if (random_chance(random, 500))
        query.prefix = kv_slice(from.data, random_between(random, from.bytes > 8 ? from.bytes - 8 : 0, from.bytes));
    if (random_chance(random, 500))
        query.after = kv_slice(after.data, random_between(random, after.bytes - 8, after.bytes));
    return query;
}

/* A shared prefix comes in place of its keys; `after` that is one skips all of them. */
static size_t expected_of(const struct query *query, const struct kv_slice *keys, size_t count, struct kv_slice *out)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        struct kv_slice shown = keys[i];
        if (!kv_slice_starts_with(keys[i], query->prefix))
            continue;
        const uint8_t *from = keys[i].data + query->prefix.bytes;
        const uint8_t *mark = query->delimiter ? memchr(from, '/', keys[i].bytes - query->prefix.bytes) : NULL;
        if (mark != NULL)
            shown.bytes = (size_t)(mark - keys[i].data) + 1;
        bool passed =
            kv_slice_compare(keys[i], query->after) <= 0 || (mark != NULL && kv_slice_equal(shown, query->after));
        if (!(query->after.bytes > 0 && passed) && (found == 0 || !kv_slice_equal(out[found - 1], shown)))
            out[found++] = shown;
    }
    return found;
}

static void check_query(struct client *client, const struct query *query, const struct kv_slice *keys, size_t count,
                        unsigned number)
{
    static struct kv_slice expected[KEYS_MAX], entries[KEYS_MAX];
    size_t all = expected_of(query, keys, count, expected);
    size_t skipped = query->offset < all ? query->offset : all;
    size_t shown = all - skipped < query->limit ? all - skipped : query->limit;
    json_t *page = ask(client, query);
    size_t found = entries_of(page, entries);
    CHECK(found == shown, "seed %u, query %u: %zu entries, not %zu", SEED, number, found, shown);
    for (size_t i = 0; i < shown; i++)
        CHECK(kv_slice_equal(entries[i], expected[skipped + i]), "seed %u, query %u: entry %zu", SEED, number, i);
    CHECK((json_object_get(page, "next") != NULL) == (skipped + shown < all), "seed %u, query %u: next", SEED, number);
    json_t *total = json_object_get(page, "total");
    CHECK(query->prefix.bytes > 0 ? total == NULL : (size_t)json_integer_value(total) == count,
          "seed %u, query %u: total %lld of %zu", SEED, number, json_integer_value(total), count);
    json_decref(page);
}

static size_t gather(const struct writer *writers, const struct kv_slice *staying, struct kv_slice *out)
{
    size_t count = GROUPS * STAYING;
    memcpy(out, staying, count * sizeof *out);
    for (unsigned w = 0; w < WRITERS; w++) {
        for (unsigned i = 0; i < GROUPS * MOVING; i++) {
            if (writers[w].there[i])
                out[count++] = writers[w].keys[i];
        }
    }
    qsort(out, count, sizeof *out, compare_slices);
    return count;
}

Test(walk, while_generations_move)
{
    static struct writer writers[WRITERS];
    static struct kv_slice staying[GROUPS * STAYING], keys[KEYS_MAX];
    struct server *server = server_start((struct server_opts){.shards = SHARDS, .settings = {"OVERLAY_BYTES=1M"}});
    struct client *client = client_new(server, HTTP_1);
    struct random random = {SEED};
    put_staying(client, staying);
    writers_start(writers, server);
    uint64_t until = kv_clock_ms() + WALK_MS;
    unsigned walks = 0;
    for (; kv_clock_ms() < until; walks++) {
        if (walks == 3)
            kill(server_child(server, "kv-shard", 1), SIGKILL);
        walk(client, staying, 5 + (unsigned)random_below(&random, 200));
    }
    unsigned long writes = writers_stop(writers);
    double generations = metric(client, "kv_storage_shard_apply_seconds_count{");
    size_t count = gather(writers, staying, keys);
    for (unsigned number = 0; number < QUERIES; number++) {
        struct query query = draw_query(&random, keys, count);
        check_query(client, &query, keys, count, number);
    }
    fprintf(stderr, "walk: %u walks, %lu writes, %.0f generations, %zu keys at the end\n", walks, writes, generations,
            count);
    CHECK(walks > 4 && writes > 500 && generations > 2 * SHARDS,
          "%u walks, %lu writes, %.0f generations: too few to count", walks, writes, generations);
    client_free(&client);
    server_stop(server);
    struct store_counts counts = server_check_files(server, SHARDS);
    CHECK(counts.keys == count, "%lu keys in the files, %zu expected", counts.keys, count);
}

/* ---- deleted rows in memory --------------------------------------------------------------------------------------- */

/* 30,000 operations of one kind on keys "gone/00000"…, in three batches. */
static void batches(struct client *client, const char *operation)
{
    for (unsigned batch = 0; batch < 3; batch++) {
        struct kv_buf body = {0};
        for (unsigned i = batch * 10000; i < (batch + 1) * 10000; i++) {
            char text[96];
            int bytes =
                snprintf(text, sizeof text, "%c{\"key\":\"gone/%05u\",%s}", body.bytes == 0 ? '[' : ',', i, operation);
            kv_buf_append(&body, kv_slice(text, (size_t)bytes));
        }
        kv_buf_append(&body, kv_slice("]", 1));
        struct request request = {.method = "POST", .target = "/batch", .body = kv_buf_peek(&body), .has_body = true};
        const struct response *response = client_send(client, &request);
        CHECK(response->status == 200, "%s: %ld %s", operation, response->status, response->problem);
        kv_buf_free(&body);
    }
}

static void expect_one_page(struct client *client, const struct query *query, struct kv_slice entry)
{
    struct kv_slice entries[16];
    json_t *page = ask(client, query);
    size_t count = entries_of(page, entries);
    CHECK(count == (entry.bytes > 0) && (count == 0 || kv_slice_equal(entries[0], entry)), "%zu entries", count);
    CHECK(json_object_get(page, "next") == NULL, "nothing follows");
    json_decref(page);
}

/* Each shard has more of them than one step passes over (LIST_STEPS_MAX): the page comes from several steps. */
Test(walk, past_deleted_rows_that_wait_in_memory)
{
    struct server *server = server_start((struct server_opts){.shards = SHARDS});
    struct client *client = client_new(server, HTTP_1);
    CHECK(client_put(client, "/zone", kv_slice_text("stays"))->status == 201);
    double rows = 0;
    for (unsigned i = 0; i < 5 && rows < 30000; i++) { /* half a second without a write, and they are applied */
        batches(client, "\"op\":\"put\",\"value\":\"short\"");
        batches(client, "\"op\":\"delete\"");
        rows = metric(client, "kv_storage_shard_overlay_rows{");
    }
    expect_one_page(client, &(struct query){.limit = 10}, kv_slice_text("zone"));
    expect_one_page(client, &(struct query){.limit = 10, .delimiter = true}, kv_slice_text("zone"));
    expect_one_page(client, &(struct query){.limit = 10, .prefix = kv_slice_text("gone/")}, kv_slice(NULL, 0));
    expect_one_page(client, &(struct query){.limit = 10, .prefix = kv_slice_text("zo")}, kv_slice_text("zone"));
    fprintf(stderr, "walk: %.0f rows in memory\n", rows);
    CHECK(rows >= 30000, "%.0f rows in memory: too few to count", rows);
    client_free(&client);
}
