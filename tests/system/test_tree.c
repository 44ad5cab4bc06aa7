/* Goal: real data in, the same data out: thousands of files of /usr/share/doc and /usr/include, byte for byte, before and after a
 * restart, on 1, 2 and 4 shards, and as many keys and objects as SHA-256 counts.
 * Method: every file is put under its path over h2c with 100 streams on one connection, read back, read back again after SIGTERM
 * and a new start, a third time after kill -9 and a new start; the numbers come from /metrics while it runs and
 * from `kv-shard --check` on the stopped store. */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "bulk.h"
#include "tree.h"

#define FILES_MAX 6000u

TestSuite(tree, .fini = harness_close, .timeout = 600);

struct run_state {
    const struct tree *tree;
    size_t wrong;
    char first[1024]; /* what was wrong first */
};

static void note_wrong(struct run_state *state, size_t i, const struct response *response, const char *what)
{
    if (state->wrong++ == 0)
        snprintf(state->first, sizeof state->first, "%s: %s, status %ld, %zu bytes %s", state->tree->files[i].path,
                 what, response->status, response->body.bytes, response->problem);
}

static void make_put(void *arg, size_t i, struct request *out)
{
    const struct tree_file *file = &((struct run_state *)arg)->tree->files[i];
    *out =
        (struct request){.method = "PUT", .target = file->target, .body = kv_buf_peek(&file->bytes), .has_body = true};
}

static void on_put(void *arg, size_t i, const struct response *response)
{
    struct run_state *state = arg;
    char expected[66];
    snprintf(expected, sizeof expected, "%s\n", state->tree->files[i].sha256);
    if (response->status != 201)
        note_wrong(state, i, response, "not created");
    else if (!response_body_is(response, kv_slice_text(expected)))
        note_wrong(state, i, response, "another hash than SHA-256 of the file");
    else if (response->version != CURL_HTTP_VERSION_2_0)
        note_wrong(state, i, response, "not over HTTP/2");
}

static void make_get(void *arg, size_t i, struct request *out)
{
    *out = (struct request){.method = "GET", .target = ((struct run_state *)arg)->tree->files[i].target};
}

static void on_get(void *arg, size_t i, const struct response *response)
{
    struct run_state *state = arg;
    if (response->status != 200)
        note_wrong(state, i, response, "not read");
    else if (!response_body_is(response, kv_buf_peek(&state->tree->files[i].bytes)))
        note_wrong(state, i, response, "other bytes than the file's");
}

static void store_tree(struct server *server, const struct tree *tree)
{
    struct run_state state = {.tree = tree};
    CHECK(bulk_run(&(struct bulk){.server = server,
                                  .http = HTTP_2,
                                  .count = tree->count,
                                  .in_flight = 100,
                                  .make = make_put,
                                  .done = on_put,
                                  .arg = &state}));
    CHECK(state.wrong == 0, "%zu of %zu writes wrong, first %s", state.wrong, tree->count, state.first);
}

static void read_tree(struct server *server, const struct tree *tree, const char *when)
{
    struct run_state state = {.tree = tree};
    CHECK(bulk_run(&(struct bulk){.server = server,
                                  .http = HTTP_2,
                                  .count = tree->count,
                                  .in_flight = 100,
                                  .make = make_get,
                                  .done = on_get,
                                  .arg = &state}));
    CHECK(state.wrong == 0, "%s: %zu of %zu reads wrong, first %s", when, state.wrong, tree->count, state.first);
}

static void check_counts(const struct server *server, const struct tree *tree, unsigned shards)
{
    struct store_counts counts = server_check_files(server, shards);
    CHECK(counts.keys == tree->count, "%llu keys, %zu files", (unsigned long long)counts.keys, tree->count);
    CHECK(counts.objects == tree->unique_count, "%llu objects, %zu different contents",
          (unsigned long long)counts.objects, tree->unique_count);
    CHECK(counts.stored_bytes > 0 && counts.stored_bytes < tree->bytes, "%llu bytes stored of %llu: text compresses",
          (unsigned long long)counts.stored_bytes, (unsigned long long)tree->bytes);
}

/* The sample of a metric without labels; fails when it is not there. */
static uint64_t metric_of(const char *text, const char *name)
{
    char line[96];
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(text, line);
    CHECK(at != NULL, "/metrics has no %s", name);
    return (uint64_t)strtod(at + strlen(line), NULL);
}

static void check_metrics(const struct server *server, const struct tree *tree)
{
    struct client *client = client_new(server, HTTP_2);
    const struct response *response = client_get(client, "/metrics");
    CHECK(response->status == 200, "GET /metrics: %ld %s", response->status, response->problem);
    struct kv_buf text = {0};
    kv_buf_append(&text, kv_buf_peek(&response->body));
    kv_buf_append(&text, kv_slice("", 1));
    uint64_t keys = metric_of((const char *)text.data, "kv_storage_keys_total");
    uint64_t objects = metric_of((const char *)text.data, "kv_storage_objects_total");
    CHECK(keys == tree->count && objects == tree->unique_count, "%llu keys of %zu, %llu objects of %zu",
          (unsigned long long)keys, tree->count, (unsigned long long)objects, tree->unique_count);
    kv_buf_free(&text);
    client_free(&client);
}

static void tree_comes_back(unsigned shards)
{
    struct tree tree = tree_read(FILES_MAX);
    struct server *server = server_start((struct server_opts){.shards = shards});
    store_tree(server, &tree);
    read_tree(server, &tree, "right after writing");
    check_metrics(server, &tree);
    server_stop(server);
    check_counts(server, &tree, shards);
    server_spawn(server);
    server_wait_ready(server);
    read_tree(server, &tree, "after a restart");
    server_kill(server);
    server_spawn(server);
    server_wait_ready(server);
    read_tree(server, &tree, "after kill -9");
    check_metrics(server, &tree);
    server_stop(server);
    check_counts(server, &tree, shards);
    tree_free(&tree);
}

Test(tree, comes_back_from_1_shard)
{
    tree_comes_back(1);
}

Test(tree, comes_back_from_2_shards)
{
    tree_comes_back(2);
}

Test(tree, comes_back_from_4_shards)
{
    tree_comes_back(4);
}
