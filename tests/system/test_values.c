/* Goal: every value and every key within the limits comes back as it was, and everything beyond them gets the status, the code and
 * the sentence of the HTTP contract, over HTTP/1.1, over h2c and by Upgrade: h2c alike.
 * Method: values around every size where the code takes another way (0, 1, 64 KiB, 256 KiB, 1 MiB, 10 MiB; noise and text), keys of
 * every awkward shape; then tables of bad requests with the answers that the contract promises, in text and in JSON. */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "client.h"

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))
#define JSON "Accept: application/json"

TestSuite(values, .fini = harness_close, .timeout = 600);

static const char *const http_names[] = {"HTTP/1.1", "h2c", "Upgrade: h2c"};

/* ---- values --------------------------------------------------------------------------------------------------- */

static struct kv_buf noise_of(size_t bytes)
{
    struct kv_buf buf = {0};
    uint64_t state = bytes + 1;
    uint8_t *at = kv_buf_reserve(&buf, bytes + 1);
    for (size_t i = 0; i < bytes; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        at[i] = (uint8_t)(state >> 56);
    }
    buf.bytes = bytes;
    return buf;
}

static struct kv_buf text_of(size_t bytes)
{
    struct kv_buf buf = {0};
    for (unsigned line = 0; buf.bytes < bytes; line++) {
        char words[80];
        int length = snprintf(words, sizeof words, "line %u: a store keeps what it was given\n", line);
        kv_buf_append(&buf, kv_slice(words, (size_t)length));
    }
    buf.bytes = bytes;
    return buf;
}

static void value_comes_back(struct client *client, const char *name, struct kv_slice value, const char *target)
{
    char sha256[65], etag[80], size[32];
    sha256_hex(value, sha256);
    snprintf(etag, sizeof etag, "\"%s\"", sha256);
    snprintf(size, sizeof size, "%zu", value.bytes);
    const struct response *response = client_put(client, target, value);
    CHECK(response->status == 201, "%s: PUT %s: %ld %s", name, target, response->status, response->problem);
    CHECK(response_header_is(response, "ETag", etag) && response_header_is(response, "X-Content-Sha256", sha256) &&
              response_header_is(response, "X-Hash", sha256) &&
              response_header_is(response, "X-Hash-Algorithm", "sha256"),
          "%s: PUT %s: headers", name, target);
    CHECK(response->body.bytes == 65 && memcmp(response->body.data, sha256, 64) == 0 &&
          response->body.data[64] == '\n');
    response = client_get(client, target);
    CHECK(response->status == 200 && response_body_is(response, value), "%s: GET %s: %ld, %zu bytes of %zu %s", name,
          target, response->status, response->body.bytes, value.bytes, response->problem);
    CHECK(response_header_is(response, "ETag", etag) && response_header_is(response, "X-Refs", "1") &&
              response_header_is(response, "Content-Length", size) &&
              response_header_is(response, "Content-Type", "application/octet-stream") &&
              response_header_is(response, "Accept-Ranges", "bytes"),
          "%s: GET %s: headers:\n%.*s", name, target, (int)response->headers.bytes,
          (const char *)response->headers.data);
    response = client_head(client, target);
    CHECK(response->status == 200 && response->body.bytes == 0 && response_header_is(response, "ETag", etag) &&
              response_header_is(response, "Content-Length", size),
          "%s: HEAD %s: %ld", name, target, response->status);
    response = client_delete(client, target);
    CHECK(response->status == 204 && response->body.bytes == 0, "%s: DELETE %s: %ld", name, target, response->status);
    CHECK(client_get(client, target)->status == 404, "%s: %s is still there", name, target);
}

Test(values, of_every_size)
{
    static const size_t sizes[] = {0,      1,      511,    4080,    4081,    65535,   65536,   65537,
                                   262143, 262144, 262145, 1048575, 1048576, 1048577, 10485760};
    struct server *server = server_start((struct server_opts){.shards = 3});
    for (enum http http = 0; http < HTTP_COUNT; http++) {
        struct client *client = client_new(server, http);
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
            char target[64];
            struct kv_buf noise = noise_of(sizes[i]), text = text_of(sizes[i]);
            snprintf(target, sizeof target, "/noise/%zu", sizes[i]);
            value_comes_back(client, http_names[http], kv_buf_peek(&noise), target);
            snprintf(target, sizeof target, "/text/%zu", sizes[i]);
            value_comes_back(client, http_names[http], kv_buf_peek(&text), target);
            kv_buf_free(&noise);
            kv_buf_free(&text);
        }
        client_free(&client);
    }
    server_stop(server);
    struct store_counts counts = server_check_files(server, 3);
    CHECK(counts.keys == 0 && counts.objects == 0 && counts.stored_bytes == 0, "deleted values leave nothing behind");
}

Test(values, largest_stay_after_a_restart)
{
    struct server *server = server_start((struct server_opts){.shards = 2});
    struct client *client = client_new(server, HTTP_2);
    struct kv_buf noise = noise_of(10485760), text = text_of(10485760);
    CHECK(client_put(client, "/noise", kv_buf_peek(&noise))->status == 201);
    CHECK(client_put(client, "/text", kv_buf_peek(&text))->status == 201);
    client_free(&client);
    server_kill(server);
    server_spawn(server);
    server_wait_ready(server);
    client = client_new(server, HTTP_2);
    const struct response *response = client_get(client, "/noise");
    CHECK(response->status == 200 && response_body_is(response, kv_buf_peek(&noise)), "%ld", response->status);
    response = client_get(client, "/text");
    CHECK(response->status == 200 && response_body_is(response, kv_buf_peek(&text)), "%ld", response->status);
    client_free(&client);
    kv_buf_free(&noise);
    kv_buf_free(&text);
    server_stop(server);
}

Test(values, sent_in_every_way)
{
    struct server *server = server_start((struct server_opts){.shards = 2});
    struct kv_buf text = text_of(300000);
    for (enum http http = 0; http < HTTP_COUNT; http++) {
        struct client *client = client_new(server, http);
        struct request put = {.method = "PUT", .target = "/chunked", .body = kv_buf_peek(&text), .has_body = true};
        put.chunked = true;
        const struct response *response = client_send(client, &put);
        CHECK(response->status == (http == 0 ? 201 : 200), "%s: %ld", http_names[http], response->status);
        put.chunked = false;
        put.headers[0] = "Expect: 100-continue";
        put.headers[1] = "Content-Type: text/plain; charset=utf-8";
        CHECK(client_send(client, &put)->status == 200, "%s: Expect: 100-continue", http_names[http]);
        response = client_get(client, "/chunked");
        CHECK(response->status == 200 && response_body_is(response, kv_buf_peek(&text)), "%s", http_names[http]);
        CHECK(response_header_is(response, "Content-Type", "text/plain; charset=utf-8"), "%s", http_names[http]);
        CHECK((response->version == CURL_HTTP_VERSION_2_0) == (http != HTTP_1), "%s: spoke %ld", http_names[http],
              response->version);
        client_free(&client);
    }
    kv_buf_free(&text);
    server_stop(server);
}

/* ---- keys ----------------------------------------------------------------------------------------------------- */

/* The request target and the key that it must mean; another spelling of the key must find the same value. */
static const struct {
    const char *target;
    const char *other_target;
} spellings[] = {
    {"/plain", "/%70lain"},
    {"/a/b%2Fc", "/a%2fb/c"},
    {"/a//b", "/a%2F%2Fb"},
    {"/a/../b", "/a/%2E%2E/b"},
    {"/../up", "/%2e./up"},
    {"/.", "/%2E"},
    {"/..", "/%2E%2E"},
    {"//", "/%2F"},
    {"/a/", "/a%2f"},
    {"/%0A", "/%0a"},
    {"/line%0Afeed%0D%09", "/line%0afeed%0d%09"},
    {"/%F0%9F%98%80", "/%f0%9f%98%80"},
    {"/gr%C3%BC%C3%9Fe", "/gr%c3%bc%c3%9fe"},
    {"/100%25", "/%31%30%30%25"},
    {"/a%3Fb%23c", "/a%3fb%23%63"},
    {"/plus+and%20space", "/plus%2Band%20space"},
    {"/%7F%01", "/%7f%01"},
    {"/keys/below", "/ke%79s/below"},
    {"/batch/below", "/batch%2Fbelow"},
    {"/-", "/%2D"},
    {"/query?ignored=1", "/query"},
};

static void key_has_two_spellings(struct client *client, const char *target, const char *other)
{
    struct kv_slice value = kv_slice_text(target);
    const struct response *response = client_put(client, target, value);
    CHECK(response->status == 201, "PUT %s: %ld %s", target, response->status, response->problem);
    response = client_get(client, other);
    CHECK(response->status == 200 && response_body_is(response, value), "GET %s after PUT %s: %ld", other, target,
          response->status);
}

Test(values, keys_of_every_shape)
{
    struct server *server = server_start((struct server_opts){.shards = 4});
    for (enum http http = 0; http < HTTP_COUNT; http++) {
        struct client *client = client_new(server, http);
        for (size_t i = 0; i < COUNT_OF(spellings); i++)
            key_has_two_spellings(client, spellings[i].target, spellings[i].other_target);
        for (size_t i = 0; i < COUNT_OF(spellings); i++) { /* each its own key: no two shapes fell together */
            const struct response *response = client_get(client, spellings[i].target);
            CHECK(response_body_is(response, kv_slice_text(spellings[i].target)), "%s", spellings[i].target);
        }
        for (size_t i = 0; i < COUNT_OF(spellings); i++)
            CHECK(client_delete(client, spellings[i].other_target)->status == 204, "%s", spellings[i].other_target);
        client_free(&client);
    }
    server_stop(server);
}

Test(values, keys_of_every_length)
{
    static const size_t lengths[] = {1, 2, 255, 495, 496, 500, 510, 511, 512, 1023, 4095, 4096};
    struct server *server = server_start((struct server_opts){.shards = 4});
    struct client *client = client_new(server, HTTP_2);
    uint8_t key[4096];
    memset(key, 'k', sizeof key); /* each a prefix of the next */
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        char *target = target_of_key(kv_slice(key, lengths[i]), false);
        CHECK(client_put(client, target, kv_slice(&lengths[i], sizeof lengths[i]))->status == 201, "%zu", lengths[i]);
        free(target);
    }
    key[4095] = 'l'; /* and one that differs in its last byte only */
    char *last = target_of_key(kv_slice(key, sizeof key), true);
    CHECK(client_put(client, last, kv_slice_text("last"))->status == 201);
    free(last);
    key[4095] = 'k';
    client_free(&client);
    server_stop(server);
    server_spawn(server);
    server_wait_ready(server);
    client = client_new(server, HTTP_1);
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        char *target = target_of_key(kv_slice(key, lengths[i]), true);
        const struct response *response = client_get(client, target);
        CHECK(response_body_is(response, kv_slice(&lengths[i], sizeof lengths[i])), "key of %zu: %ld", lengths[i],
              response->status);
        free(target);
    }
    client_free(&client);
    server_stop(server);
    CHECK(server_check_files(server, 4).keys == COUNT_OF(lengths) + 1);
}

Test(values, a_key_whose_every_byte_is_encoded)
{
    struct server *server = server_start((struct server_opts){.shards = 1});
    uint8_t key[4096];
    for (size_t i = 0; i < sizeof key; i += 2)
        memcpy(key + i, "\xc3\xa9", 2); /* 12,288 bytes of target */
    char *target = target_of_key(kv_slice(key, sizeof key), false);
    for (enum http http = 0; http < HTTP_2_UPGRADE; http++) {
        struct client *client = client_new(server, http);
        const struct response *response = client_put(client, target, kv_slice_text("long"));
        CHECK(response->status == 201 || (http > 0 && response->status == 200), "%ld", response->status);
        CHECK(response_body_is(client_get(client, target), kv_slice_text("long")));
        client_free(&client);
    }
    free(target);
    server_stop(server);
}

/* ---- refusals ------------------------------------------------------------------------------------------------- */

struct refusal {
    const char *method;
    const char *target;
    const char *headers[2];
    bool no_token;
    long status;
    const char *code;
    const char *header; /* of the answer, with its value */
    const char *header_value;
};

static const struct refusal refusals[] = {
    {"GET", "/missing", {0}, false, 404, "not_found", NULL, NULL},
    {"HEAD", "/missing", {0}, false, 404, "not_found", NULL, NULL},
    {"DELETE", "/missing", {0}, false, 404, "not_found", NULL, NULL},
    {"GET", "/", {0}, false, 404, "not_found", NULL, NULL},
    {"PUT", "/", {0}, false, 404, "not_found", NULL, NULL},
    {"GET", "/-/unknown", {0}, false, 404, "not_found", NULL, NULL},
    {"GET", "/%", {0}, false, 400, "invalid_key", NULL, NULL},
    {"PUT", "/%4", {0}, false, 400, "invalid_key", NULL, NULL},
    {"GET", "/%zz", {0}, false, 400, "invalid_key", NULL, NULL},
    {"GET", "/a%00b", {0}, false, 400, "invalid_key", NULL, NULL},
    {"PUT", "/%FF", {0}, false, 400, "invalid_key", NULL, NULL},
    {"GET", "/%C0%AF", {0}, false, 400, "invalid_key", NULL, NULL},
    {"GET", "/%ED%A0%80", {0}, false, 400, "invalid_key", NULL, NULL},
    {"GET", "/%F4%90%80%80", {0}, false, 400, "invalid_key", NULL, NULL},
    {"GET", "/%E2%82", {0}, false, 400, "invalid_key", NULL, NULL},
    {"PUT", "/k", {"X-Content-Sha256: 00"}, false, 400, "invalid_request", NULL, NULL},
    {"PUT",
     "/k",
     {"X-Content-Sha256: 0000000000000000000000000000000000000000000000000000000000000000"},
     false,
     400,
     "invalid_request",
     NULL,
     NULL},
    {"GET", "/k", {0}, true, 401, "unauthorized", "WWW-Authenticate", "Bearer realm=\"kv-storage\""},
    {"PUT", "/k", {0}, true, 401, "unauthorized", "WWW-Authenticate", "Bearer realm=\"kv-storage\""},
    {"GET", "/%zz", {0}, true, 401, "unauthorized", NULL, NULL},
    {"BREW", "/-/unknown", {0}, true, 401, "unauthorized", NULL, NULL},
    {"GET", "/metrics", {0}, true, 401, "unauthorized", NULL, NULL},
    {"GET", "/k", {"Authorization: Bearer wrong"}, false, 401, "unauthorized", NULL, NULL},
    {"GET", "/k", {"Authorization: Bearer " TOKEN "x"}, false, 401, "unauthorized", NULL, NULL},
    {"GET", "/k", {"Authorization: Basic " TOKEN}, false, 401, "unauthorized", NULL, NULL},
    {"GET", "/k", {"Authorization: Bearer"}, false, 401, "unauthorized", NULL, NULL},
    {"GET", "/k", {"Authorization: " TOKEN}, false, 401, "unauthorized", NULL, NULL},
    {"POST", "/k", {0}, false, 405, "method_not_allowed", "Allow", NULL},
    {"BREW", "/k", {0}, false, 405, "method_not_allowed", "Allow", NULL},
    {"PUT", "/keys", {0}, false, 405, "method_not_allowed", "Allow", NULL},
    {"DELETE", "/batch", {0}, false, 405, "method_not_allowed", "Allow", NULL},
    {"PUT", "/metrics", {0}, false, 405, "method_not_allowed", "Allow", NULL},
    {"PUT", "/-/ready", {0}, false, 405, "method_not_allowed", "Allow", NULL},
    {"DELETE", "/-/healthy", {0}, false, 405, "method_not_allowed", "Allow", NULL},
};

static void fill_request(const struct refusal *refusal, const char *accept, struct request *out)
{
    size_t headers = 0;
    *out = (struct request){.method = refusal->method, .target = refusal->target, .no_token = refusal->no_token};
    for (size_t i = 0; i < COUNT_OF(refusal->headers) && refusal->headers[i] != NULL; i++)
        out->headers[headers++] = refusal->headers[i];
    out->headers[headers] = accept;
    out->has_body = strcmp(refusal->method, "PUT") == 0;
    out->body = kv_slice(out->has_body ? "v" : NULL, out->has_body ? 1 : 0);
}

/* `Error: <sentence>\n`, or {"error":{"code":…,"message":…}}. */
static bool body_is_error(const struct response *response, const char *code, bool json)
{
    char expected[128];
    const struct kv_buf *body = &response->body;
    if (!json)
        return response_header_is(response, "Content-Type", "text/plain; charset=utf-8") && body->bytes > 9 &&
               memcmp(body->data, "Error: ", 7) == 0 &&
               memchr(body->data, '\n', body->bytes) == body->data + body->bytes - 1;
    snprintf(expected, sizeof expected, "{\"error\":{\"code\":\"%s\",\"message\":\"", code);
    return response_header_is(response, "Content-Type", "application/json") && body->bytes > strlen(expected) + 4 &&
           memcmp(body->data, expected, strlen(expected)) == 0;
}

static void expect_refusal(struct client *client, const char *name, const struct refusal *refusal, bool json)
{
    struct request request;
    char space[HEADER_BYTES];
    fill_request(refusal, json ? JSON : NULL, &request);
    const struct response *response = client_send(client, &request);
    CHECK(response->status == refusal->status, "%s: %s %s: %ld, not %ld: %.*s %s", name, refusal->method,
          refusal->target, response->status, refusal->status, (int)response->body.bytes,
          (const char *)response->body.data, response->problem);
    bool head = strcmp(refusal->method, "HEAD") == 0;
    CHECK(head ? response->body.bytes == 0 : body_is_error(response, refusal->code, json),
          "%s: %s %s: body (%s): %.*s, type %s", name, refusal->method, refusal->target, json ? "JSON" : "text",
          (int)response->body.bytes, (const char *)response->body.data,
          response_header(response, "Content-Type", space));
    if (refusal->header == NULL)
        return;
    response_header(response, refusal->header, space);
    CHECK(refusal->header_value == NULL ? *space != '\0' : strcmp(space, refusal->header_value) == 0,
          "%s: %s %s: %s: %s", name, refusal->method, refusal->target, refusal->header, space);
}

Test(values, refusals_are_the_contracts)
{
    struct server *server = server_start((struct server_opts){.shards = 2});
    for (enum http http = 0; http < HTTP_COUNT; http++) {
        struct client *client = client_new(server, http);
        for (size_t i = 0; i < COUNT_OF(refusals); i++) {
            expect_refusal(client, http_names[http], &refusals[i], false);
            expect_refusal(client, http_names[http], &refusals[i], true);
        }
        CHECK(client_get(client, "/k")->status == 404, "a refused request stored something");
        client_free(&client);
    }
    server_stop(server);
    CHECK(server_check_files(server, 2).keys == 0);
}

Test(values, keys_beyond_the_limit)
{
    struct server *server = server_start((struct server_opts){.shards = 1});
    uint8_t key[4097];
    memset(key, 'k', sizeof key);
    char *target = target_of_key(kv_slice(key, sizeof key), false);
    for (enum http http = 0; http < HTTP_2_UPGRADE; http++) {
        struct client *client = client_new(server, http);
        struct refusal refusal = {"PUT", target, {0}, false, 414, "key_too_long", NULL, NULL};
        expect_refusal(client, http_names[http], &refusal, true);
        refusal.method = "GET";
        expect_refusal(client, http_names[http], &refusal, false);
        client_free(&client);
    }
    free(target);
    server_stop(server);
}

Test(values, values_beyond_the_limit)
{
    struct server *server = server_start((struct server_opts){.shards = 1, .settings = {"MAX_VALUE_BYTES=100K"}});
    struct kv_buf largest = noise_of(102400), larger = noise_of(102401), huge = noise_of(3000000);
    for (enum http http = 0; http < HTTP_COUNT; http++) {
        struct client *client = client_new(server, http);
        CHECK(client_put(client, "/k", kv_buf_peek(&largest))->status == (http == 0 ? 201 : 200), "%s",
              http_names[http]);
        for (unsigned chunked = 0; chunked < 2; chunked++) {
            struct request put = {.method = "PUT", .target = "/k", .has_body = true, .headers = {JSON}};
            put.chunked = chunked == 1;
            put.body = kv_buf_peek(&larger);
            const struct response *response = client_send(client, &put);
            CHECK(response->status == 413 && body_is_error(response, "too_large", true), "%s: %ld %s", http_names[http],
                  response->status, response->problem);
            put.body = kv_buf_peek(&huge);
            response = client_send(client, &put);
            CHECK(response->status == 413, "%s: %ld %s", http_names[http], response->status, response->problem);
        }
        CHECK(response_body_is(client_get(client, "/k"), kv_buf_peek(&largest)), "what was there is still there");
        client_free(&client);
    }
    kv_buf_free(&largest);
    kv_buf_free(&larger);
    kv_buf_free(&huge);
    server_stop(server);
}

Test(values, the_servers_own_paths)
{
    struct server *server = server_start((struct server_opts){.shards = 2});
    for (enum http http = 0; http < HTTP_COUNT; http++) {
        struct client *client = client_new(server, http);
        struct request open = {.method = "GET", .target = "/-/healthy", .no_token = true};
        const struct response *response = client_send(client, &open);
        CHECK(response->status == 200, "%s: %ld %s", http_names[http], response->status, response->problem);
        open.target = "/-/ready";
        response = client_send(client, &open);
        CHECK(response->status == 200, "%s: %ld %s", http_names[http], response->status, response->problem);
        struct request any_case = {.method = "GET", .target = "/k", .headers = {"Authorization: bEARER " TOKEN}};
        CHECK(client_send(client, &any_case)->status == 404, "%s: the scheme's name in any case", http_names[http]);
        client_free(&client);
    }
    server_stop(server);
}
