/* Goal: a shard that comes back without rows that its last run had acknowledged (DURABILITY=interval, and the flush failed or the
 * power went) has lost them for every reader: the router does not go on to answer from its cache what the shard denies.
 * Method: a copy of the shard's files is taken between two writes of a key; while the supervisor is stopped the shard is killed and
 * finds the copy when it is started again. */
#include <criterion/criterion.h>

#include <signal.h>
#include <stdio.h>

#include "client.h"
#include "kv/clock.h"

#define WAIT_MS 60000u

TestSuite(set_back, .fini = harness_close, .timeout = 600);

static void shell(const char *command)
{
    struct outcome done = run((const char *const[]){"sh", "-c", command, NULL}, (struct run_opts){0});
    CHECK(done.exit_code == 0, "%s: %d", command, done.exit_code);
    outcome_free(&done);
}

static void put(struct client *client, const char *value)
{
    long status = client_put(client, "/key", kv_slice_text(value))->status;
    CHECK(status == 201 || status == 200, "PUT: %ld", status);
}

/* The second answer is a cached one. */
static void expect_twice(struct client *client, const char *value)
{
    for (unsigned i = 0; i < 2; i++) {
        const struct response *response = client_get(client, "/key");
        CHECK(response->status == 200 && response_body_is(response, kv_slice_text(value)), "GET: %ld %.*s for %s",
              response->status, (int)response->body.bytes, (const char *)response->body.data, value);
    }
}

static void copy_files(const struct server *server, pid_t shard)
{
    char command[512];
    snprintf(command, sizeof command, "cp -a --sparse=always %s/shard-0 %s/older", server->db_path, server->folder);
    CHECK(kill(shard, SIGSTOP) == 0);
    sleep_ms(100); /* a thread within a write stops behind it; nothing is written now */
    shell(command);
    CHECK(kill(shard, SIGCONT) == 0);
}

static void set_back(const struct server *server, pid_t shard)
{
    char command[512];
    snprintf(command, sizeof command,
             "find %s/shard-0 -mindepth 1 -delete && cp -a --sparse=always %s/older/. %s/shard-0/", server->db_path,
             server->folder, server->db_path);
    CHECK(kill(server->pid, SIGSTOP) == 0);
    CHECK(kill(shard, SIGKILL) == 0 && processes_die_within(&shard, 1, WAIT_MS));
    shell(command);
    CHECK(kill(server->pid, SIGCONT) == 0);
}

Test(set_back, the_cache_forgets_what_the_shard_has_lost)
{
    struct server *server = server_start((struct server_opts){
        .shards = 1, .settings = {"DURABILITY=interval", "FLUSH_INTERVAL_MS=50", "ROUTER_THREADS=1"}});
    struct client *client = client_new(server, HTTP_2);
    pid_t shard = server_child(server, "kv-shard", 0), again = 0;
    put(client, "older");
    sleep_ms(500); /* flushed */
    copy_files(server, shard);
    put(client, "newer");
    expect_twice(client, "newer");
    set_back(server, shard);
    for (uint64_t until = kv_clock_ms() + WAIT_MS; (again == 0 || again == shard) && kv_clock_ms() < until; sleep_ms(5))
        again = server_child(server, "kv-shard", 0);
    server_wait_ready(server);
    expect_twice(client, "older");
    put(client, "newest");
    expect_twice(client, "newest");
    client_free(&client);
    server_stop(server);
    CHECK(server_check_files(server, 1).keys == 1);
}
