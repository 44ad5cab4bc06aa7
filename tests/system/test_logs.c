/* Goal: what happened at night can be read in the morning, by people and by machines, and nothing that is secret is in it.
 * Method: a store that logs as much as it can, in JSON and in text; requests of every kind with values, tokens and request ids of which
 * each is recognisable; every line of the log is taken apart, and the secrets are looked for in all of it. */
#include <criterion/criterion.h>

#include <ctype.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>

#include "client.h"
#include "kv/clock.h"

#define VALUE "value-that-nobody-may-read"
#define REQUESTS 7u /* with an id */
#define WRONG_TOKEN "token-that-was-mistyped"

TestSuite(logs, .fini = harness_close, .timeout = 600);

static struct server *start(const char *format, const char *access_log)
{
    return server_start((struct server_opts){.shards = 2, .settings = {format, access_log, "LOG_LEVEL=debug"}});
}

static void send_with(struct client *client, const char *method, const char *target, const char *body,
                      const char *header, long status)
{
    struct request request = {.method = method, .target = target, .headers = {header}};
    if (body != NULL) {
        request.body = kv_slice_text(body);
        request.has_body = true;
    }
    const struct response *response = client_send(client, &request);
    CHECK(response->status == status, "%s %s: %ld %s", method, target, response->status, response->problem);
}

/* Requests of every kind, each with an id of its own, then a killed shard: lines of all processes. */
static void make_noise(struct server *server)
{
    struct client *client = client_new(server, HTTP_1);
    send_with(client, "PUT", "/noise", VALUE, "X-Request-Id: id-put", 201);
    send_with(client, "GET", "/noise", NULL, "X-Request-Id: id-get", 200);
    send_with(client, "GET", "/keys?prefix=no", NULL, "X-Request-Id: id-list", 200);
    send_with(client, "POST", "/batch", "[{\"op\":\"put\",\"key\":\"b\",\"value\":\"" VALUE "\"}]",
              "X-Request-Id: id-batch", 200);
    send_with(client, "POST", "/batch", "[{\"op\":\"put\",\"key\":\"b\",\"value\":\"" VALUE "\"},]",
              "X-Request-Id: id-malformed", 400);
    send_with(client, "GET", "/noise", NULL, "Authorization: Bearer " WRONG_TOKEN, 401);
    send_with(client, "GET", "/-/ready?token=" TOKEN "&wrong=" WRONG_TOKEN, NULL, "X-Request-Id: id-query", 200);
    send_with(client, "GET", "/line%0Afeed%22%1b", NULL, "X-Request-Id: id-escaped", 404);
    client_free(&client);
    kill(server_child(server, "kv-shard", 1), SIGKILL);
    server_wait_ready(server);
    server_stop(server);
}

static void expect_no_secret(const struct server *server)
{
    static const char *const secrets[] = {VALUE, TOKEN, WRONG_TOKEN};
    for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++)
        CHECK(!server_log_has(server, secrets[i]), "the log holds %s", secrets[i]);
}

/* Calls `check` for each line, zero-terminated. */
static unsigned each_line(const struct server *server, void (*check)(const char *line))
{
    struct kv_buf log = read_file(server->log_path);
    unsigned lines = 0;
    char *rest = NULL;
    kv_buf_append(&log, kv_slice("", 1));
    for (char *line = strtok_r((char *)log.data, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest), lines++)
        check(line);
    kv_buf_free(&log);
    return lines;
}

/* ---- JSON --------------------------------------------------------------------------------------------------------- */

static unsigned of_shards, of_router, of_supervisor, with_epoch;

static void check_json(const char *line)
{
    json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    CHECK(json_is_object(object), "not a JSON object: %s", line);
    const char *process = json_string_value(json_object_get(object, "process"));
    const char *level = json_string_value(json_object_get(object, "level"));
    CHECK(process != NULL && level != NULL && json_is_string(json_object_get(object, "message")), "%s", line);
    CHECK(json_string_length(json_object_get(object, "time")) == strlen("2026-11-22T21:00:00.000Z"), "%s", line);
    bool shard = strcmp(process, "shard") == 0;
    CHECK(shard == json_is_integer(json_object_get(object, "shard")), "%s", line);
    of_shards += shard;
    of_router += strcmp(process, "router") == 0;
    of_supervisor += strcmp(process, "supervisor") == 0;
    with_epoch += json_integer_value(json_object_get(object, "epoch")) > 0;
    json_decref(object);
}

static bool has_request(const char *line, const char *id, const char *message)
{
    char member[64];
    snprintf(member, sizeof member, "\"request\":\"%s\"", id);
    return strstr(line, member) != NULL && strstr(line, message) != NULL;
}

static unsigned found;

static void find_requests(const char *line)
{
    static const struct {
        const char *id, *message;
    } expected[REQUESTS] = {
        {"id-put", "access PUT status=201"},    {"id-get", "access GET status=200"},        {"id-list", "/keys\""},
        {"id-batch", "access POST status=200"}, {"id-malformed", "access POST status=400"}, {"id-query", "/-/ready\""},
        {"id-escaped", "/line%0Afeed%22%1b\""},
    };
    for (size_t i = 0; i < REQUESTS; i++)
        found += has_request(line, expected[i].id, expected[i].message);
}

Test(logs, json_lines_name_time_place_and_request)
{
    struct server *server = start("LOG_FORMAT=json", "ACCESS_LOG=on");
    make_noise(server);
    unsigned lines = each_line(server, check_json);
    CHECK(of_shards > 0 && of_router > 7 && of_supervisor > 0 && with_epoch > 0, "%u lines: %u, %u, %u, %u", lines,
          of_shards, of_router, of_supervisor, with_epoch);
    each_line(server, find_requests);
    CHECK(found == REQUESTS, "%u of %u requests in the access log", found, REQUESTS);
    expect_no_secret(server);
}

/* ---- text --------------------------------------------------------------------------------------------------------- */

static void check_text(const char *line)
{
    int end = 0;
    char level[8], process[16];
    int fields = sscanf(line, "%*4d-%*2d-%*2dT%*2d:%*2d:%*2d.%*3dZ %7s process=%15s%n", level, process, &end);
    CHECK(fields == 2 && end > 0, "%s", line);
    CHECK((strcmp(process, "shard") == 0) == (strncmp(line + end, " shard=", 7) == 0), "%s", line);
    for (const char *at = line; *at != '\0'; at++)
        CHECK((unsigned char)*at >= ' ' && *at != 0x7f, "a control byte: %s", line);
}

Test(logs, text_lines_say_the_same)
{
    struct server *server = start("LOG_FORMAT=text", "ACCESS_LOG=on");
    make_noise(server);
    CHECK(each_line(server, check_text) > 10);
    CHECK(server_log_has(server, " request=id-put access PUT status=201 "));
    CHECK(server_log_has(server, " request=id-malformed access POST status=400 "));
    expect_no_secret(server);
}

Test(logs, no_access_log_unless_asked_for)
{
    struct server *server = start("LOG_FORMAT=text", "ACCESS_LOG=off");
    make_noise(server);
    CHECK(!server_log_has(server, " access "));
    expect_no_secret(server);
}

/* ---- request ids -------------------------------------------------------------------------------------------------- */

static const char *answered_id(struct client *client, const char *header, char out[HEADER_BYTES])
{
    const struct response *response =
        client_send(client, &(struct request){.method = "GET", .target = "/nothing", .headers = {header}});
    CHECK(response->status == 404, "%ld %s", response->status, response->problem);
    return response_header(response, "X-Request-Id", out);
}

static bool is_made(const char *id)
{
    size_t digits = strspn(id, "0123456789abcdef");
    return digits == 32 && id[digits] == '\0';
}

Test(logs, request_ids_are_taken_or_made)
{
    char first[HEADER_BYTES], second[HEADER_BYTES], long_id[256] = "X-Request-Id: ";
    struct server *server = start("LOG_FORMAT=text", "ACCESS_LOG=on");
    for (enum http http = HTTP_1; http <= HTTP_2; http++) {
        struct client *client = client_new(server, http);
        cr_expect_str_eq(answered_id(client, "X-Request-Id: trace/7.a-B", first), "trace/7.a-B");
        CHECK(is_made(answered_id(client, NULL, first)) && is_made(answered_id(client, NULL, second)), "%s", first);
        CHECK(strcmp(first, second) != 0, "the same id twice: %s", first);
        cr_expect(is_made(answered_id(client, "X-Request-Id: two words", second)), "%s", second);
        memset(long_id + strlen("X-Request-Id: "), 'x', 129);
        cr_expect(is_made(answered_id(client, long_id, second)), "%s", second);
        CHECK(server_log_has(server, first), "a made id is not in the log");
        client_free(&client);
    }
}
