/* Goal: /metrics of the real store: exact totals, no counter that ever goes back whatever is killed, a shard that does not answer is
 * said to be down and the rest served, restarts are counted, and promtool has nothing to say.
 * Method: known writes, then kill -9 of shards and of the router between scrapes; every counter of each scrape is compared with the
 * one before; a shard stopped with SIGSTOP, with readers behind it. */
#include <criterion/criterion.h>

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "client.h"
#include "kv/clock.h"

#define SHARDS 3u
#define ROUNDS 6

TestSuite(metrics, .fini = harness_close, .timeout = 600);

/* A copy of the page, zero-terminated. */
static char *scrape(struct client *client)
{
    const struct response *response = client_get(client, "/metrics");
    CHECK(response->status == 200, "GET /metrics: %ld %s", response->status, response->problem);
    char *page = kv_alloc(response->body.bytes + 1);
    memcpy(page, response->body.data, response->body.bytes);
    page[response->body.bytes] = '\0';
    return page;
}

/* The value of a sample, -1 when it is not there. */
static double sample(const char *page, const char *name)
{
    size_t bytes = strlen(name);
    for (const char *line = page; line != NULL; line = strchr(line, '\n') == NULL ? NULL : strchr(line, '\n') + 1)
        if (strncmp(line, name, bytes) == 0 && line[bytes] == ' ')
            return atof(line + bytes);
    return -1;
}

static void expect_sample(struct client *client, const char *name, double value)
{
    char *page = scrape(client);
    CHECK(sample(page, name) == value, "%s is %g, not %g", name, sample(page, name), value);
    free(page);
}

/* Every sample of the first page whose name says that it only grows. */
static unsigned expect_nothing_went_back(const char *before, const char *after)
{
    unsigned compared = 0;
    for (const char *line = before; *line != '\0'; line = strchr(line, '\n') + 1) {
        char name[256];
        const char *end = line;
        while (*end != '\n' && !(*end == ' ' && (end[-1] == '}' || memchr(line, '{', (size_t)(end - line)) == NULL)))
            end++;
        snprintf(name, sizeof(name), "%.*s", (int)(end - line), line);
        bool grows = strstr(name, "_total") != NULL || strstr(name, "_bucket{") != NULL ||
                     strstr(name, "_count{") != NULL || strstr(name, "_sum{") != NULL;
        bool is_level = strncmp(name, "kv_storage_keys", 15) == 0 || strncmp(name, "kv_storage_objects", 18) == 0 ||
                        strncmp(name, "kv_storage_bytes", 16) == 0;
        if (*line == '#' || !grows || is_level)
            continue;
        compared++;
        CHECK(sample(after, name) >= sample(before, name), "%s went from %g to %g", name, sample(before, name),
              sample(after, name));
    }
    return compared;
}

static void put(struct client *client, unsigned number, const char *value, long status)
{
    char target[32];
    snprintf(target, sizeof(target), "/key-%u", number);
    const struct response *response = client_put(client, target, kv_slice_text(value));
    CHECK(response->status == status, "PUT %s: %ld %s", target, response->status, response->problem);
}

static void wait_for(struct client *client, const char *name, double value)
{
    double now = -1;
    for (int tries = 0; tries < 300 && now != value; tries++) {
        char *page = scrape(client);
        now = sample(page, name);
        free(page);
        sleep_ms(now == value ? 0 : 100);
    }
    CHECK(now == value, "%s is %g, not %g after 30 s", name, now, value);
}

/* GETs one key until one of them was answered from the router's memory; returns how many it took. */
static unsigned get_until_cached(struct client *client, const char *target)
{
    unsigned gets = 0;
    double hits = 0;
    while (hits == 0 && gets < 1000) {
        CHECK(client_get(client, target)->status == 200);
        gets++;
        char *page = scrape(client);
        hits = sample(page, "kv_storage_cache_hits_total");
        free(page);
    }
    CHECK(hits == 1, "%g hits after %u GETs", hits, gets);
    return gets;
}

Test(metrics, totals_are_exact)
{
    struct server *server = server_start((struct server_opts){.shards = SHARDS});
    struct client *client = client_new(server, HTTP_2);
    for (unsigned i = 0; i < 30; i++)
        put(client, i, i % 3 == 0 ? "same" : i % 3 == 1 ? "other" : "third", 201);
    for (unsigned i = 0; i < 12; i++) {
        char target[32];
        snprintf(target, sizeof(target), "/key-%u", i);
        CHECK(client_get(client, target)->status == 200);
    }
    unsigned gets = 12 + get_until_cached(client, "/key-29");
    CHECK(client_delete(client, "/key-0")->status == 204);
    expect_sample(client, "kv_storage_keys_total", 29);
    expect_sample(client, "kv_storage_objects_total", 3);
    expect_sample(client, "kv_storage_ops_total{operation=\"put\"}", 30);
    expect_sample(client, "kv_storage_ops_total{operation=\"get\"}", gets);
    expect_sample(client, "kv_storage_ops_total{operation=\"delete\"}", 1);
    expect_sample(client, "kv_storage_dedup_hits_total", 27);
    expect_sample(client, "kv_storage_requests_total{method=\"PUT\",status=\"201\"}", 30);
    expect_sample(client, "kv_storage_request_duration_seconds_count{operation=\"get\"}", gets);
    expect_sample(client, "kv_storage_ready", 1);
    for (unsigned i = 1; i < 30; i++) {
        char target[32];
        snprintf(target, sizeof(target), "/key-%u", i);
        CHECK(client_delete(client, target)->status == 204);
    }
    expect_sample(client, "kv_storage_keys_total", 0);
    expect_sample(client, "kv_storage_objects_total", 0);
    expect_sample(client, "kv_storage_bytes_total", 0);
    client_free(&client);
}

/* A client of its own for each scrape: the connection dies with the router. */
static char *scrape_anew(const struct server *server)
{
    struct client *client = client_new(server, HTTP_1);
    const struct response *response = NULL;
    for (int tries = 0; tries < 100 && (response == NULL || response->status != 200); tries++) {
        if (tries > 0)
            sleep_ms(100);
        response = client_get(client, "/-/ready");
    }
    char *page = scrape(client);
    client_free(&client);
    return page;
}

Test(metrics, counters_never_go_back)
{
    struct server *server = server_start((struct server_opts){.shards = SHARDS});
    char *before = scrape_anew(server);
    unsigned compared = 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct client *client = client_new(server, HTTP_2);
        for (unsigned i = 0; i < 20; i++)
            put(client, 1000 * (unsigned)round + i, "value", 201);
        free(scrape(client)); /* tells everybody the counts so far */
        client_free(&client);
        char *told = scrape_anew(server);
        compared += expect_nothing_went_back(before, told);
        bool router = round % 3 == 2;
        pid_t pid = router ? server_child(server, "kv-router", -1) : server_child(server, "kv-shard", round % 3);
        CHECK(pid > 0 && kill(pid, SIGKILL) == 0);
        free(before);
        before = scrape_anew(server);
        compared += expect_nothing_went_back(told, before);
        free(told);
    }
    CHECK(sample(before, "kv_storage_ops_total{operation=\"put\"}") == 20.0 * ROUNDS, "%g puts",
          sample(before, "kv_storage_ops_total{operation=\"put\"}"));
    static const char *const histograms[] = {"journal_group_records", "journal_group_bytes", "journal_write_seconds",
                                             "journal_flush_seconds"};
    for (unsigned i = 0; i < 4; i++) { /* shard 0 died twice: its first life counts too */
        char name[128];
        snprintf(name, sizeof(name), "kv_storage_shard_%s_count{shard=\"0\"}", histograms[i]);
        CHECK(sample(before, name) >= ROUNDS, "%s is %g", name, sample(before, name));
    }
    CHECK(sample(before, "kv_storage_restarts_total{process=\"router\",shard=\"\"}") == 2);
    CHECK(sample(before, "kv_storage_restarts_total{process=\"shard\",shard=\"0\"}") == 2);
    CHECK(sample(before, "kv_storage_restarts_total{process=\"shard\",shard=\"2\"}") == 0);
    cr_log_info("%u comparisons", compared);
    free(before);
}

Test(metrics, a_shard_that_does_not_answer)
{
    struct server *server = server_start((struct server_opts){.shards = SHARDS});
    struct client *client = client_new(server, HTTP_2);
    for (unsigned i = 0; i < 30; i++)
        put(client, i, "value", 201);
    expect_sample(client, "kv_storage_shard_up{shard=\"2\"}", 1);
    pid_t shard = server_child(server, "kv-shard", 2);
    CHECK(kill(shard, SIGSTOP) == 0);
    wait_for(client, "kv_storage_shard_up{shard=\"2\"}", 0);
    expect_sample(client, "kv_storage_shard_up{shard=\"0\"}", 1);
    expect_sample(client, "kv_storage_keys_total", 30);
    expect_sample(client, "kv_storage_ops_total{operation=\"put\"}", 30);
    CHECK(kill(shard, SIGCONT) == 0);
    wait_for(client, "kv_storage_shard_up{shard=\"2\"}", 1);
    client_free(&client);
}

#define READERS 24u

struct reader {
    const struct server *server;
    unsigned number;
    long status;
    pthread_t thread;
};

static void *read_key(void *arg)
{
    struct reader *reader = arg;
    struct client *client = client_new(reader->server, reader->number % 2 == 0 ? HTTP_1 : HTTP_2);
    char target[32];
    snprintf(target, sizeof(target), "/key-%u", reader->number);
    reader->status = client_get(client, target)->status;
    client_free(&client);
    return NULL;
}

/* The page once nothing moves any more: all requests under way but its own wait for shard 2. Freed by the caller. */
static char *wait_for_waiting(struct client *client)
{
    char *page = scrape(client);
    for (int tries = 0; tries < 300; tries++) {
        double waiting = sample(page, "kv_storage_shard_calls{shard=\"2\",state=\"waiting\"}");
        if (waiting > 0 && waiting == sample(page, "kv_storage_requests_waiting_for_shards") &&
            sample(page, "kv_storage_requests_in_flight") == waiting + 1) /* and this one */
            break;
        free(page);
        sleep_ms(100);
        page = scrape(client);
    }
    return page;
}

Test(metrics, who_waits_for_a_shard_that_hangs)
{
    struct server *server = server_start((struct server_opts){.shards = SHARDS, .settings = {"SHARD_WAIT_MS=100000"}});
    struct client *client = client_new(server, HTTP_1);
    struct reader readers[READERS];
    for (unsigned i = 0; i < READERS; i++) {
        char value[32];
        snprintf(value, sizeof(value), "value %u", i);
        put(client, i, value, 201);
    }
    wait_for(client, "kv_storage_transactions_open", 0);
    pid_t shard = server_child(server, "kv-shard", 2);
    CHECK(kill(shard, SIGSTOP) == 0);
    for (unsigned i = 0; i < READERS; i++) {
        readers[i] = (struct reader){.server = server, .number = i};
        CHECK(pthread_create(&readers[i].thread, NULL, read_key, &readers[i]) == 0);
    }
    char *page = wait_for_waiting(client);
    double waiting = sample(page, "kv_storage_shard_calls{shard=\"2\",state=\"waiting\"}");
    CHECK(waiting >= 1 && waiting < READERS, "%g wait", waiting);
    CHECK(sample(page, "kv_storage_requests_waiting_for_shards") == waiting);
    CHECK(sample(page, "kv_storage_requests_in_flight") == waiting + 1);
    CHECK(sample(page, "kv_storage_shard_calls{shard=\"2\",state=\"sent\"}") == 0);
    CHECK(sample(page, "kv_storage_shard_calls{shard=\"0\",state=\"waiting\"}") == 0);
    CHECK(sample(page, "kv_storage_shard_up{shard=\"2\"}") == 0);
    free(page);
    CHECK(kill(shard, SIGCONT) == 0);
    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        CHECK(readers[i].status == 200, "key-%u: %ld", i, readers[i].status);
    }
    wait_for(client, "kv_storage_requests_waiting_for_shards", 0);
    wait_for(client, "kv_storage_shard_calls{shard=\"2\",state=\"waiting\"}", 0);
    client_free(&client);
}

/* Sixteen pages would take 16 s if each waited METRICS_WAIT_MS (1 s) for a shard that hangs, or is gone. */
static void expect_no_wait(struct client *client, const char *name)
{
    enum { PAGES = 16 };
    uint64_t began_ms = kv_clock_ms();
    for (unsigned i = 0; i < PAGES; i++)
        expect_sample(client, name, 0);
    uint64_t took_ms = kv_clock_ms() - began_ms;
    CHECK(took_ms < PAGES * 1000u, "%u pages took %lu ms", (unsigned)PAGES, took_ms);
}

Test(metrics, a_shard_that_hangs_is_not_waited_for_again)
{
    struct server *server = server_start((struct server_opts){.shards = SHARDS});
    struct client *client = client_new(server, HTTP_1);
    pid_t shard = server_child(server, "kv-shard", 1);
    CHECK(kill(shard, SIGSTOP) == 0);
    wait_for(client, "kv_storage_ready", 0);
    expect_no_wait(client, "kv_storage_shard_up{shard=\"1\"}");
    expect_sample(client, "kv_storage_shard_up{shard=\"0\"}", 1);
    CHECK(kill(shard, SIGCONT) == 0);
    wait_for(client, "kv_storage_shard_up{shard=\"1\"}", 1);
    wait_for(client, "kv_storage_ready", 1);
    client_free(&client);
}

static void damage(const struct server *server, unsigned shard)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/shard-%u/data.mdb", server->db_path, shard);
    FILE *file = fopen(path, "r+e");
    CHECK(file != NULL, "%s", path);
    for (unsigned i = 0; i < 2 * 4096; i++) /* both meta pages */
        fputc(0xff, file);
    CHECK(fclose(file) == 0);
}

Test(metrics, a_shard_that_cannot_start)
{
    struct server *server = server_start((struct server_opts){.shards = SHARDS});
    struct client *client = client_new(server, HTTP_1);
    for (unsigned i = 0; i < 30; i++)
        put(client, i, "value", 201);
    expect_sample(client, "kv_storage_keys_total", 30); /* what a shard told last is what is shown */
    damage(server, 2);
    CHECK(kill(server_child(server, "kv-shard", 2), SIGKILL) == 0);
    wait_for(client, "kv_storage_shard_up{shard=\"2\"}", 0);
    expect_no_wait(client, "kv_storage_shard_up{shard=\"2\"}");
    expect_sample(client, "kv_storage_shard_up{shard=\"0\"}", 1);
    expect_sample(client, "kv_storage_shard_up{shard=\"1\"}", 1);
    expect_sample(client, "kv_storage_keys_total", 30);
    expect_sample(client, "kv_storage_ops_total{operation=\"put\"}", 30);
    expect_sample(client, "kv_storage_ready", 0);
    client_free(&client);
}

Test(metrics, promtool_has_nothing_to_say)
{
    struct server *server = server_start((struct server_opts){.shards = SHARDS});
    struct client *client = client_new(server, HTTP_2);
    if (access("/usr/bin/promtool", X_OK) != 0)
        cr_skip_test("promtool is not installed (Debian package prometheus)");
    put(client, 1, "value", 201);
    char *page = scrape(client), path[128];
    snprintf(path, sizeof(path), "%s/metrics", temp_folder());
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(page, file) >= 0 && fclose(file) == 0);
    char command[192];
    snprintf(command, sizeof(command), "promtool check metrics <%s", path);
    struct outcome outcome = run((const char *const[]){"sh", "-c", command, NULL}, (struct run_opts){.wait_ms = 20000});
    CHECK(outcome.exit_code == 0 && outcome.out.bytes == 0 && outcome.err.bytes == 0, "promtool: %d %.*s",
          outcome.exit_code, (int)outcome.err.bytes, (const char *)outcome.err.data);
    outcome_free(&outcome);
    free(page);
    client_free(&client);
}
