/* Goal: GET /keys of the real store gives every key in byte order over all shards, also of keys that share very long prefixes, and a
 * walk by `next` sees each key that stays exactly once, whatever writers do meanwhile.
 * Method: keys made from a seed, some of 470 to 4,096 bytes with common prefixes, compared with a sorted array for random `after`,
 * `prefix`, `offset`, `limit` and `delimiter`, also of several bytes; then walks while other threads add and delete keys
 * in between. Odd rounds run after a kill -9 of a shard, so that part of the keys comes from the journal. */
#include <criterion/criterion.h>

#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "batch.h"
#include "client.h"

#define SEED 20261122u
#define KEYS 400u
#define QUERIES 250u
#define STAYING 600u
#define WALKS 12u
#define WRITERS 3u

TestSuite(list, .fini = harness_close, .timeout = 600);

/* ---- keys and what is expected of them ------------------------------------------------------------------------------ */

static struct kv_slice keys[KEYS];
static uint64_t seed = SEED;

static unsigned draw(unsigned below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((seed >> 33) % below);
}

static int compare_slices(const void *a, const void *b)
{
    return kv_slice_compare(*(const struct kv_slice *)a, *(const struct kv_slice *)b);
}

/* Few characters, so that prefixes are shared, also in the middle of one: the last two differ in their last byte only. */
static const char *const letters[] = {"a", "b", "/", "\xc3\xa9", "\xe6\x97\xa5", "\xe6\x97\xa6"};
static const char *const delimiters[] = {"", "", "/", "/", "\xc3\xa9", "\xe6\x97\xa5"};

/* The first bytes of half of them are one long run. */
static struct kv_slice make_key(unsigned i)
{
    static const size_t runs[] = {469, 470, 471, 505, 511, 512, 1000, 4000, 4080};
    size_t run = i % 2 == 0 ? 0 : runs[draw(9)];
    unsigned tail = 1 + draw(12);
    struct kv_buf key = {0};
    memset(kv_buf_reserve(&key, run + 1), 'x', run);
    key.bytes = run;
    for (unsigned at = 0; at < tail && key.bytes <= 4092; at++) {
        const char *letter = letters[draw(6)];
        kv_buf_append(&key, kv_slice_text(letter));
    }
    return kv_buf_peek(&key); /* the buffer is freed as keys are */
}

/* The first bytes of a key, at most so many, whole characters. */
static struct kv_slice cut(struct kv_slice key, size_t bytes)
{
    while (bytes > 0 && bytes < key.bytes && (key.data[bytes] & 0xc0) == 0x80)
        bytes--;
    return kv_slice(key.data, bytes);
}

static void make_keys(void)
{
    size_t kept = 0;
    for (unsigned i = 0; i < KEYS; i++)
        keys[i] = make_key(i);
    qsort(keys, KEYS, sizeof(keys[0]), compare_slices);
    for (unsigned i = 1; i < KEYS; i++) /* the same key twice: give the second a tail of its own */
        if (kv_slice_equal(keys[i], keys[i - 1]))
            kept++;
    cr_log_info("%zu of %u keys repeat", kept, KEYS);
}

static void put_keys(struct client *client)
{
    for (unsigned i = 0; i < KEYS; i++) {
        char *target = target_of_key(keys[i], true);
        const struct response *response = client_put(client, target, kv_slice_text("value"));
        CHECK(response->status == 200 || response->status == 201, "PUT: %ld %s", response->status, response->problem);
        free(target);
    }
}

static size_t unique_keys(void)
{
    size_t count = 1;
    for (unsigned i = 1; i < KEYS; i++)
        if (!kv_slice_equal(keys[i], keys[count - 1]))
            keys[count++] = keys[i];
    return count;
}

/* ---- pages -------------------------------------------------------------------------------------------------------- */

static json_t *ask(struct client *client, const char *target)
{
    json_error_t error;
    const struct response *response = client_send(client, &(struct request){.method = "GET", .target = target});
    CHECK(response->status == 200, "GET %.200s: %ld %s", target, response->status, response->problem);
    json_t *root = json_loadb((const char *)response->body.data, response->body.bytes, JSON_REJECT_DUPLICATES, &error);
    CHECK(root != NULL, "not JSON: %s", error.text);
    return root;
}

static struct kv_slice text_of(const json_t *value)
{
    return value == NULL ? kv_slice(NULL, 0) : kv_slice(json_string_value(value), json_string_length(value));
}

struct query {
    struct kv_slice prefix, after;
    const char *delimiter;
    unsigned limit, offset;
};

static struct query draw_query(size_t count)
{
    struct query query = {
        .limit = 1 + draw(30), .offset = draw(3) == 0 ? draw(50) : 0, .delimiter = delimiters[draw(6)]};
    struct kv_slice from = keys[draw((unsigned)count)];
    if (draw(2) == 0)
        query.prefix = cut(from, draw((unsigned)from.bytes));
    if (draw(2) == 0) {
        struct kv_slice after = keys[draw((unsigned)count)];
        query.after = cut(after, 1 + draw((unsigned)after.bytes));
    }
    return query;
}

static void append_parameter(char *target, size_t space, const char *name, struct kv_slice value)
{
    char *encoded = target_of_key(value, true);
    size_t used = strlen(target);
    snprintf(target + used, space - used, "&%s=%s", name, encoded + 1);
    free(encoded);
}

static json_t *ask_query(struct client *client, const struct query *query)
{
    static char target[32768];
    snprintf(target, sizeof(target), "/keys?limit=%u&offset=%u", query->limit, query->offset);
    if (*query->delimiter != '\0')
        append_parameter(target, sizeof(target), "delimiter", kv_slice_text(query->delimiter));
    append_parameter(target, sizeof(target), "prefix", query->prefix);
    append_parameter(target, sizeof(target), "after", query->after);
    return ask(client, target);
}

/* The shared prefix that the listing shows in place of this key, or the key. */
static struct kv_slice shown_as(const struct query *query, struct kv_slice key)
{
    const uint8_t *from = key.data + query->prefix.bytes;
    size_t bytes = strlen(query->delimiter);
    const uint8_t *mark = bytes > 0 ? memmem(from, key.bytes - query->prefix.bytes, query->delimiter, bytes) : NULL;
    return mark == NULL ? key : kv_slice(key.data, (size_t)(mark - key.data) + bytes);
}

/* The model: everything that the query shows, without limit and offset. `after` that is a shared prefix itself skips all of it. */
static size_t expected_of(const struct query *query, size_t count, struct kv_slice *out)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        if (!kv_slice_starts_with(keys[i], query->prefix))
            continue;
        struct kv_slice shown = shown_as(query, keys[i]);
        bool seen = query->after.bytes > 0 && (kv_slice_compare(keys[i], query->after) <= 0 ||
                                               (shown.bytes < keys[i].bytes && kv_slice_equal(shown, query->after)));
        if (!seen && (found == 0 || !kv_slice_equal(out[found - 1], shown)))
            out[found++] = shown;
    }
    return found;
}

/* Keys and prefixes of a page, merged in order. */
static size_t page_of(const json_t *root, struct kv_slice *out)
{
    const json_t *listed = json_object_get(root, "keys"), *prefixes = json_object_get(root, "prefixes");
    size_t found = 0;
    for (size_t i = 0; i < json_array_size(listed); i++)
        out[found++] = text_of(json_object_get(json_array_get(listed, i), "key"));
    for (size_t i = 0; i < json_array_size(prefixes); i++)
        out[found++] = text_of(json_array_get(prefixes, i));
    for (size_t i = 1; i < json_array_size(listed); i++)
        CHECK(kv_slice_compare(out[i - 1], out[i]) < 0, "keys out of order");
    qsort(out, found, sizeof(*out), compare_slices);
    return found;
}

static void check_query(struct client *client, const struct query *query, size_t count, unsigned number)
{
    static struct kv_slice expected[KEYS], page[KEYS];
    size_t all = expected_of(query, count, expected);
    size_t skipped = query->offset < all ? query->offset : all;
    size_t shown = all - skipped < query->limit ? all - skipped : query->limit;
    json_t *root = ask_query(client, query);
    size_t got = page_of(root, page);
    CHECK(got == shown, "query %u of seed %u: %zu entries, expected %zu", number, SEED, got, shown);
    for (size_t i = 0; i < shown; i++)
        CHECK(kv_slice_equal(page[i], expected[skipped + i]), "query %u of seed %u, entry %zu", number, SEED, i);
    const json_t *next = json_object_get(root, "next");
    CHECK((next != NULL) == (skipped + shown < all), "query %u of seed %u: next", number, SEED);
    if (next != NULL)
        CHECK(kv_slice_equal(text_of(next), page[got - 1]), "query %u of seed %u: next is not the last", number, SEED);
    const json_t *total = json_object_get(root, "total");
    CHECK(query->prefix.bytes > 0 ? total == NULL : json_integer_value(total) == (json_int_t)count,
          "query %u of seed %u: total", number, SEED);
    json_decref(root);
}

Test(list, pages_agree_with_a_sorted_array)
{
    struct server *server = server_start((struct server_opts){.shards = 4});
    struct client *client = client_new(server, HTTP_2);
    make_keys();
    put_keys(client);
    size_t count = unique_keys();
    for (unsigned number = 0; number < QUERIES; number++) {
        struct query query = draw_query(count);
        if (number % 50 == 25)
            kill(server_child(server, "kv-shard", (int)(number / 50) % 4), SIGKILL);
        check_query(client, &query, count, number);
    }
    client_free(&client);
    for (size_t i = 0; i < count; i++)
        free((void *)(uintptr_t)keys[i].data);
}

/* ---- walks among writers -------------------------------------------------------------------------------------------- */

struct mover {
    const struct server *server;
    unsigned index;
    atomic_bool stop;
    atomic_ulong moves;
    pthread_t thread;
};

/* Adds and deletes keys that lie between the ones that stay. */
static void *move(void *arg)
{
    struct mover *mover = arg;
    struct client *client = client_new(mover->server, HTTP_1);
    uint64_t state = mover->index + 1;
    while (!atomic_load(&mover->stop)) {
        char target[64];
        state = state * 6364136223846793005u + 1442695040888963407u;
        snprintf(target, sizeof(target), "/s%04u-moving-%u", (unsigned)(state >> 33) % STAYING, mover->index);
        if ((state >> 60) % 2 == 0)
            client_put(client, target, kv_slice_text("moving"));
        else
            client_delete(client, target);
        atomic_fetch_add(&mover->moves, 1);
    }
    client_free(&client);
    return NULL;
}

static void put_staying(struct client *client)
{
    struct batch batch = {0};
    for (unsigned i = 0; i < STAYING; i++) {
        char key[16];
        snprintf(key, sizeof(key), "s%04u", i);
        batch_put(&batch, key, kv_slice_text(key), false, (struct match){.kind = MATCH_NONE});
    }
    const struct response *response = batch_send(client, &batch);
    CHECK(response->status == 200, "POST /batch: %ld %s", response->status, response->problem);
    batch_free(&batch);
}

static bool stays(const char *key)
{
    return strchr(key, '-') == NULL;
}

/* Returns the number of pages. */
static unsigned walk(struct client *client, unsigned limit)
{
    char after[64] = "", last[64] = "", target[160];
    unsigned seen = 0, pages = 0;
    for (bool more = true; more; pages++) {
        snprintf(target, sizeof(target), "/keys?limit=%u&after=%s", limit, after);
        json_t *root = ask(client, target);
        const json_t *listed = json_object_get(root, "keys");
        CHECK(json_array_size(listed) <= limit, "too many keys");
        for (size_t i = 0; i < json_array_size(listed); i++) {
            const char *key = json_string_value(json_object_get(json_array_get(listed, i), "key"));
            CHECK(strcmp(last, key) < 0, "%s comes behind %s", key, last);
            snprintf(last, sizeof(last), "%s", key);
            if (stays(key))
                CHECK(atoi(key + 1) == (int)seen++, "%s comes instead of s%04u", key, seen);
        }
        more = json_object_get(root, "next") != NULL;
        if (more)
            snprintf(after, sizeof(after), "%s", json_string_value(json_object_get(root, "next")));
        json_decref(root);
    }
    CHECK(seen == STAYING, "%u of %u keys seen", seen, STAYING);
    return pages;
}

Test(list, walks_among_writers)
{
    static struct mover movers[WRITERS];
    struct server *server = server_start((struct server_opts){.shards = 4});
    struct client *client = client_new(server, HTTP_2);
    put_staying(client);
    for (unsigned i = 0; i < WRITERS; i++) {
        movers[i] = (struct mover){.server = server, .index = i};
        CHECK(pthread_create(&movers[i].thread, NULL, move, &movers[i]) == 0);
    }
    unsigned pages = 0;
    for (unsigned i = 0; i < WALKS; i++) {
        if (i == WALKS / 2)
            kill(server_child(server, "kv-shard", 2), SIGKILL);
        pages += walk(client, 1 + i * 9);
    }
    unsigned long moves = 0;
    for (unsigned i = 0; i < WRITERS; i++) {
        atomic_store(&movers[i].stop, true);
        pthread_join(movers[i].thread, NULL);
        moves += atomic_load(&movers[i].moves);
    }
    cr_log_info("%u pages, %lu writes meanwhile", pages, moves);
    cr_expect_gt(moves, 200, "the writers hardly wrote: %lu", moves);
    client_free(&client);
}
