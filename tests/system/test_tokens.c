/* Goal: tokens of a file, and files again on SIGHUP, with the real processes: what is wrong stops a start with one sentence and a
 * running store never, not even when its router dies afterwards; and no token is found anywhere it should not be.
 * Method: a store with TOKENS_FILE and TLS files that are rewritten under it. */
#include <criterion/criterion.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client.h"
#include "kv/clock.h"

#define READER "token-of-the-reader"
#define NEWER "token-of-the-newer-reader"

TestSuite(tokens, .fini = harness_close, .timeout = 600);

static char path[128], setting[160];

static void name_file(void)
{
    snprintf(path, sizeof path, "%s/tokens", temp_folder());
    snprintf(setting, sizeof setting, "TOKENS_FILE=%s", path);
}

static void write_text(const char *text)
{
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void write_reader(const char *token)
{
    char hex[65], line[128];
    sha256_hex(kv_slice_text(token), hex);
    snprintf(line, sizeof line, "# of a test\nreader:r:pub/:%s\n", hex);
    write_text(line);
}

static long status_of(struct server *server, const char *token, const char *method, const char *target)
{
    char header[160];
    struct client *client = client_new(server, HTTP_2);
    snprintf(header, sizeof header, "Authorization: Bearer %s", token);
    struct request request = {.method = method, .target = target, .headers = {header}};
    if (strcmp(method, "PUT") == 0) {
        request.body = kv_slice_text("value");
        request.has_body = true;
    }
    long status = client_send(client, &request)->status;
    client_free(&client);
    return status;
}

static void expect(struct server *server, const char *token, const char *method, const char *target, long expected)
{
    long status = status_of(server, token, method, target);
    CHECK(status == expected, "%s %s: %ld, not %ld", method, target, status, expected);
}

static void wait_for_log(const struct server *server, const char *text)
{
    uint64_t until_ms = kv_clock_ms() + 20000;
    while (!server_log_has(server, text) && kv_clock_ms() < until_ms)
        sleep_ms(10);
    CHECK(server_log_has(server, text), "the log has no \"%s\"", text);
}

static void wait_for_status(struct server *server, const char *token, const char *target, long expected)
{
    uint64_t until_ms = kv_clock_ms() + 20000;
    while (status_of(server, token, "GET", target) != expected && kv_clock_ms() < until_ms)
        sleep_ms(20);
    expect(server, token, "GET", target, expected);
}

static struct server *start(void)
{
    name_file();
    write_reader(READER);
    return server_start((struct server_opts){.shards = 2, .settings = {setting, "AUTH_FAILURES_MAX=0"}});
}

Test(tokens, rights_and_rotation)
{
    struct server *server = start();
    expect(server, TOKEN, "PUT", "/pub/a", 201);
    expect(server, TOKEN, "PUT", "/private", 201);
    expect(server, READER, "GET", "/pub/a", 200);
    expect(server, READER, "GET", "/private", 403);
    expect(server, READER, "PUT", "/pub/a", 403);
    expect(server, READER, "DELETE", "/pub/a", 403);
    expect(server, READER, "GET", "/keys", 403);
    expect(server, READER, "GET", "/keys?prefix=pub/", 200);
    expect(server, READER, "GET", "/metrics", 403);
    expect(server, NEWER, "GET", "/pub/a", 401);
    write_reader(NEWER);
    kill(server->pid, SIGHUP);
    wait_for_status(server, NEWER, "/pub/a", 200);
    wait_for_status(server, READER, "/pub/a", 401);
    expect(server, TOKEN, "GET", "/private", 200);
    server_stop(server);
    CHECK(!server_log_has(server, READER) && !server_log_has(server, NEWER) && !server_log_has(server, TOKEN));
}

/* The files that a router refuses never reach the next one; those that it took do. */
Test(tokens, a_bad_file_changes_nothing_even_when_the_router_dies)
{
    struct server *server = start();
    expect(server, TOKEN, "PUT", "/pub/a", 201);
    write_reader(NEWER);
    kill(server->pid, SIGHUP);
    wait_for_status(server, NEWER, "/pub/a", 200);
    write_text("# fine so far\n\nreader:rz:pub/:00\n");
    kill(server->pid, SIGHUP);
    wait_for_log(server, "what was loaded before stays: TOKENS_FILE: line 3: ");
    expect(server, NEWER, "GET", "/pub/a", 200);
    unlink(path);
    kill(server->pid, SIGHUP);
    wait_for_log(server, "what was loaded before stays: TOKENS_FILE: ");
    for (int i = 0; i < 2; i++) {
        kill(server_child(server, "kv-router", -1), SIGKILL);
        server_wait_ready(server);
        wait_for_status(server, NEWER, "/pub/a", 200);
        expect(server, READER, "GET", "/pub/a", 401);
    }
    write_reader(READER);
    kill(server->pid, SIGHUP);
    wait_for_status(server, READER, "/pub/a", 200);
    server_stop(server);
}

static void expect_refused(const char *env, const char *sentence)
{
    char db[160], bind[64];
    snprintf(db, sizeof db, "DB_PATH=%s/db", temp_folder());
    snprintf(bind, sizeof bind, "BIND_ADDR=127.0.0.1:%u", free_port());
    struct outcome outcome = run((const char *const[]){"kv-storage", NULL}, (struct run_opts){.env = {env, db, bind}});
    kv_buf_append(&outcome.err, kv_slice("", 1));
    CHECK(outcome.exit_code == 2, "%s: exit code %d: %s", env, outcome.exit_code, (const char *)outcome.err.data);
    CHECK(strstr((const char *)outcome.err.data, sentence) != NULL, "%s", (const char *)outcome.err.data);
    CHECK(access(db + strlen("DB_PATH="), F_OK) != 0, "%s: a store was left", env);
    outcome_free(&outcome);
}

Test(tokens, a_bad_file_stops_the_start)
{
    name_file();
    expect_refused(setting, "TOKENS_FILE: ");
    write_text("reader:r:pub/:secret\n");
    expect_refused(setting, "TOKENS_FILE: line 1: not of the form");
    write_text("# nobody\n");
    expect_refused(setting, "TOKENS_FILE: line 1: the file ends without a token");
}

/* The file alone, without TOKEN: the harness gives one, so that the store is started by hand. */
Test(tokens, each_source_alone_is_enough)
{
    name_file();
    write_reader(READER);
    struct server *server = server_new((struct server_opts){.shards = 1, .settings = {setting, "TOKEN="}});
    server_spawn(server);
    server_wait_ready(server);
    expect(server, READER, "GET", "/pub/a", 404);
    expect(server, TOKEN, "GET", "/pub/a", 401);
    server_stop(server);
    write_text(NEWER "\n");
    snprintf(setting, sizeof setting, "TOKEN_FILE=%s", path);
    server = server_start((struct server_opts){.shards = 1, .settings = {setting, "AUTH_FAILURES_MAX=0"}});
    expect(server, NEWER, "PUT", "/k", 201);
    expect(server, TOKEN, "GET", "/k", 200);
    write_text(READER "\n");
    kill(server->pid, SIGHUP);
    wait_for_status(server, READER, "/k", 200);
    expect(server, NEWER, "GET", "/k", 401);
    server_stop(server);
}
