/* tests/system/storm.c -- see storm.h. What clients do: storm_ops.c. */
#include "storm.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "content.h"

#define LONG_KEY_BYTES 700

void storm_key(size_t key, char out[STORM_KEY_BYTES])
{
    int bytes =
        snprintf(out, STORM_KEY_BYTES, "storm/%02u/%03u", (unsigned)(key / STORM_KEYS), (unsigned)(key % STORM_KEYS));
    if (key % 10 != 9)
        return;
    memset(out + bytes, 'k', LONG_KEY_BYTES - (size_t)bytes);
    out[LONG_KEY_BYTES] = '\0';
}

void storm_fail(struct storm_client *client, const char *format, ...)
{
    struct storm *storm = client->storm;
    va_list args;
    va_start(args, format);
    pthread_mutex_lock(&storm->mutex);
    if (storm->failure[0] == '\0') {
        int bytes = snprintf(storm->failure, sizeof storm->failure, "client %u: ", client->index);
        vsnprintf(storm->failure + bytes, sizeof storm->failure - (size_t)bytes, format, args);
    }
    pthread_mutex_unlock(&storm->mutex);
    va_end(args);
    atomic_store(&storm->failed, true);
}

/* ---- life ----------------------------------------------------------------------------------------------------- */

void storm_init(struct storm *storm, struct server *server, uint64_t seed, bool no_errors)
{
    memset(storm, 0, sizeof *storm);
    storm->server = server;
    storm->no_errors = no_errors;
    storm->model.key_count = (size_t)STORM_CLIENTS * STORM_KEYS;
    pthread_mutex_init(&storm->mutex, NULL);
    for (unsigned i = 0; i < STORM_CLIENTS; i++) {
        struct storm_client *client = &storm->clients[i];
        client->storm = storm;
        client->index = i;
        client->random.state = seed * 1000 + i;
    }
}

static void *client_main(void *arg)
{
    struct storm_client *client = arg;
    struct storm *storm = client->storm;
    while (!atomic_load(&storm->stop) && !atomic_load(&storm->failed))
        storm_operate(client);
    return NULL;
}

void storm_start(struct storm *storm)
{
    atomic_store(&storm->stop, false);
    for (unsigned i = 0; i < STORM_CLIENTS; i++) {
        struct storm_client *client = &storm->clients[i];
        client->http = client_new(storm->server, i % 4 == 3 ? HTTP_1 : HTTP_2); /* before threads: libcurl's start-up */
        CHECK(pthread_create(&client->thread, NULL, client_main, client) == 0);
    }
}

void storm_stop(struct storm *storm)
{
    atomic_store(&storm->stop, true);
    for (unsigned i = 0; i < STORM_CLIENTS; i++)
        pthread_join(storm->clients[i].thread, NULL);
    for (unsigned i = 0; i < STORM_CLIENTS; i++)
        client_free(&storm->clients[i].http);
    CHECK(!atomic_load(&storm->failed), "%s", storm->failure);
}

/* ---- the end -------------------------------------------------------------------------------------------------- */

static void verify_total(struct client *client, const struct model *model)
{
    const struct response *response = client_get(client, "/keys?limit=1");
    json_t *json = json_loadb((const char *)response->body.data, response->body.bytes, 0, NULL);
    CHECK(response->status == 200 && json != NULL, "GET /keys: %ld", response->status);
    long long total = json_integer_value(json_object_get(json, "total"));
    json_decref(json);
    CHECK((uint64_t)total == model_keys(model), "/keys counts %lld keys, the model %llu", total,
          (unsigned long long)model_keys(model));
}

static void verify_key(struct client *client, const struct model *model, size_t key)
{
    char target[STORM_KEY_BYTES + 1] = "/", refs[32];
    uint64_t content = model->content[key];
    storm_key(key, target + 1);
    const struct response *response = client_get(client, target);
    if (content == 0) {
        CHECK(response->status == 404, "%.60s: %ld, should be absent", target, response->status);
        return;
    }
    snprintf(refs, sizeof refs, "%llu", (unsigned long long)model_refs(model, content));
    CHECK(response->status == 200 && content_is(content, kv_buf_peek(&response->body)),
          "%.60s: %ld, %zu bytes, should be content %llu: %.60s %s", target, response->status, response->body.bytes,
          (unsigned long long)content, response->body.bytes > 0 ? (const char *)response->body.data : "",
          response->problem);
    CHECK(response_header_is(response, "X-Refs", refs), "%.60s, content %llu: X-Refs should be %s; headers: %.*s",
          target, (unsigned long long)content, refs, (int)response->headers.bytes,
          (const char *)response->headers.data);
}

void storm_verify(struct storm *storm)
{
    struct client *client = client_new(storm->server, HTTP_2);
    for (size_t key = 0; key < storm->model.key_count; key++)
        verify_key(client, &storm->model, key);
    verify_total(client, &storm->model);
    client_free(&client);
}

void storm_delete_all(struct storm *storm)
{
    struct client *client = client_new(storm->server, HTTP_2);
    for (size_t key = 0; key < storm->model.key_count; key++) {
        char target[STORM_KEY_BYTES + 1] = "/";
        storm_key(key, target + 1);
        long wanted = storm->model.content[key] == 0 ? 404 : 204, status = client_delete(client, target)->status;
        CHECK(status == wanted, "DELETE %.60s: %ld, not %ld", target, status, wanted);
        storm->model.content[key] = 0;
    }
    client_free(&client);
}
