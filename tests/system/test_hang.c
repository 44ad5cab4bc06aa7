/* Goal: a shard that hangs costs its own keys and contents time, and nobody else anything, for as long as it lasts: the others serve,
 * and forget transactions as they end; also under a router that was started meanwhile and cannot know yet what the last one left.
 * Method: one of three shards gets SIGSTOP; writes that touch it are asked and stay open; many that do not are answered, and then the
 * others' metrics must say that nothing done is remembered any more; the router is killed, and the same again; SIGCONT, and
 * what was open is settled; the files are checked, and the log, which tells of each silence once. */
#include <criterion/criterion.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "client.h"
#include "kv/clock.h"
#include "kv/placement.h"

#define SHARDS 3u
#define HUNG 2u
#define WRITES 400u
#define STUCK 2u /* writes that stay open: each is waited for */
#define FORGET_MS_MAX 60000u

TestSuite(hang, .fini = harness_close, .timeout = 600);

static unsigned content_shard(const char *text)
{
    char hex[65];
    uint8_t hash[32];
    sha256_hex(kv_slice_text(text), hex);
    for (unsigned i = 0; i < sizeof hash; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        hash[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return kv_shard_of(kv_slice(hash, sizeof hash), SHARDS);
}

/* A key of this shard; `number` makes it another one. */
static const char *key_target(unsigned shard_index, unsigned number)
{
    static char target[64];
    for (unsigned i = 0;; i++) {
        snprintf(target, sizeof target, "/hang/%u/%u", number, i);
        if (kv_shard_of(kv_slice_text(target + 1), SHARDS) == shard_index)
            return target;
    }
}

static const char *content_text(unsigned shard_index, unsigned number)
{
    static char text[64];
    for (unsigned i = 0;; i++) {
        snprintf(text, sizeof text, "content %u, try %u", number, i);
        if (content_shard(text) == shard_index)
            return text;
    }
}

static long put(struct client *client, unsigned key_shard, unsigned text_shard, unsigned number)
{
    const struct response *response =
        client_put(client, key_target(key_shard, number), kv_slice_text(content_text(text_shard, number)));
    return response->status;
}

/* Key and content on different shards, so that each is prepared at two and committed at two; neither hangs. */
static void write_beside(struct client *client, unsigned first)
{
    for (unsigned i = first; i < first + WRITES; i++) {
        long status = put(client, i % 2, (i + 1) % 2, i);
        CHECK(status == 201, "PUT beside the shard that hangs: %ld", status);
    }
}

static double remembered(struct client *client, unsigned shard_index)
{
    char name[64];
    snprintf(name, sizeof name, "\nkv_storage_shard_done{shard=\"%u\"} ", shard_index);
    const struct response *response = client_get(client, "/metrics");
    CHECK(response->status == 200, "GET /metrics: %ld", response->status);
    char *page = kv_alloc(response->body.bytes + 1);
    memcpy(page, response->body.data, response->body.bytes);
    page[response->body.bytes] = '\0';
    const char *line = strstr(page, name);
    CHECK(line != NULL, "no%s", name);
    double value = atof(line + strlen(name));
    free(page);
    return value;
}

static void expect_forgotten(struct client *client)
{
    double left = 1;
    for (uint64_t until = kv_clock_ms() + FORGET_MS_MAX; left > 0 && kv_clock_ms() < until; sleep_ms(50))
        left = remembered(client, 0) + remembered(client, 1);
    CHECK(left == 0, "%g transactions that have ended are remembered while shard %u hangs", left, HUNG);
}

static void replace_router(struct server *server)
{
    pid_t old = server_child(server, "kv-router", -1), new = old;
    kill(old, SIGKILL);
    for (uint64_t until = kv_clock_ms() + 20000; (new == old || new == 0) && kv_clock_ms() < until; sleep_ms(5))
        new = server_child(server, "kv-router", -1);
    CHECK(new != old &&new != 0, "the router was not started again");
}

static unsigned count_text(const struct server *server, const char *text)
{
    struct kv_buf log = read_file(server->log_path);
    unsigned count = 0;
    kv_buf_append(&log, kv_slice("", 1));
    for (const char *at = (const char *)log.data; (at = strstr(at, text)) != NULL; at++)
        count++;
    kv_buf_free(&log);
    return count;
}

/* One line each, however many requests it concerned. */
static void expect_told(const struct server *server, unsigned silences, unsigned ends)
{
    unsigned silent = 0, over = 0;
    for (uint64_t until = kv_clock_ms() + 20000; (silent < silences || over < ends) && kv_clock_ms() < until;
         sleep_ms(50)) {
        silent = count_text(server, "shard 2 does not answer");
        over = count_text(server, "shard 2 answers again");
    }
    CHECK(silent == silences && over == ends, "told %u times of the silence, %u times of its end", silent, over);
    CHECK(count_text(server, " does not answer:") == silences, "of other shards, too");
}

Test(hang, others_serve_and_forget)
{
    struct server *server =
        server_start((struct server_opts){.shards = SHARDS, .settings = {"SHARD_WAIT_MS=3000", "ROUTER_THREADS=2"}});
    struct client *client = client_new(server, HTTP_2);
    pid_t hung = server_child(server, "kv-shard", HUNG);
    CHECK(hung != 0 && kill(hung, SIGSTOP) == 0);
    for (unsigned i = 0; i < STUCK; i++) {
        long status = put(client, i % 2, HUNG, i);
        CHECK(status == 504 || status == 503, "a content for the shard that hangs: %ld", status);
    }
    write_beside(client, 1000);
    expect_forgotten(client);
    client_free(&client);
    expect_told(server, 1, 0);
    replace_router(server);
    client = client_new(server, HTTP_2);
    write_beside(client, 2000);
    expect_forgotten(client);
    expect_told(server, 2, 0);
    CHECK(kill(hung, SIGCONT) == 0);
    server_wait_ready(server);
    for (unsigned i = 0; i < STUCK; i++) {
        long status = client_get(client, key_target(i % 2, i))->status;
        CHECK(status == 200 || status == 404, "what was open is settled: %ld", status);
        CHECK(put(client, i % 2, HUNG, i) < 300, "nothing holds the key any more");
    }
    client_free(&client);
    expect_told(server, 2, 1);
    server_stop(server);
    struct store_counts counts = server_check_files(server, SHARDS);
    CHECK(counts.keys == 2 * WRITES + STUCK && counts.objects == 2 * WRITES + STUCK, "%llu keys, %llu objects",
          (unsigned long long)counts.keys, (unsigned long long)counts.objects);
}
