/* tests/system/storm_ops.c -- what a client of the storm does, and how it knows that the answer is right: see storm.h. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "content.h"
#include "kv/clock.h"
#include "storm_ops.h"

#define SETTLE_MS_MAX 60000u

/* ---- the model's side ----------------------------------------------------------------------------------------- */

uint64_t *storm_state_of(struct storm_client *client, size_t key)
{
    return &client->storm->model.content[key];
}

size_t storm_pick_key(struct storm_client *client)
{
    return (size_t)client->index * STORM_KEYS + random_below(&client->random, STORM_KEYS);
}

uint64_t storm_pick_content(struct storm_client *client)
{
    if (random_chance(&client->random, 350))
        return 1 + random_below(&client->random, CONTENT_SHARED);
    return UNIQUE_FROM + client->written++ * STORM_CLIENTS + client->index;
}

bool storm_holds(const struct storm_write *write, uint64_t now)
{
    switch (write->match.kind) {
    case MATCH_ANY:
        return now != 0;
    case MATCH_ABSENT:
        return now == 0;
    case MATCH_HASH:
        return now == write->match_content;
    default:
        return true;
    }
}

static void match_to(struct storm_write *write, uint64_t content)
{
    struct kv_buf bytes = content_make(content);
    write->match = match_content(kv_buf_peek(&bytes));
    write->match_content = content;
    kv_buf_free(&bytes);
}

/* One in eight conditions is on something else than what is there. */
void storm_pick_match(struct storm_client *client, struct storm_write *write, uint64_t now)
{
    bool wrong = random_chance(&client->random, 125);
    if (random_chance(&client->random, 300))
        write->match.kind = (now == 0) != wrong ? MATCH_ABSENT : MATCH_ANY;
    else
        match_to(write, now == 0 || wrong ? storm_pick_content(client) : now);
}

/* ---- answers -------------------------------------------------------------------------------------------------- */

/* Counts, judges what can be judged without the model; false when the answer says nothing about the store. */
enum fate storm_judge(struct storm_client *client, enum storm_op op, const struct response *response, uint64_t begin)
{
    static const char *const names[] = {"PUT", "GET", "DELETE", "replace", "create", "batch", "list", "peek"};
    enum fate fate = fate_of(response);
    uint64_t took = kv_clock_ms() - begin;
    client->asked[op]++;
    client->fates[fate]++;
    client->slowest_ms = took > client->slowest_ms ? took : client->slowest_ms;
    if (fate == FATE_WRONG || (client->storm->no_errors && fate_is_error(fate)))
        storm_fail(client, "%s: status %ld after %llu ms: %.*s %s", names[op], response->status,
                   (unsigned long long)took, (int)(response->body.bytes > 200 ? 200 : response->body.bytes),
                   (const char *)response->body.data, response->problem);
    else if (!fate_is_error(fate))
        atomic_fetch_add(&client->storm->acknowledged, 1);
    else if (response->status == 0 || fate == FATE_REFUSED)
        sleep_ms(2 + (unsigned)random_below(&client->random, 15));
    return fate;
}

static bool shows(const struct response *response, uint64_t content)
{
    if (content == 0)
        return response->status == 404;
    return response->status == 200 && content_is(content, kv_buf_peek(&response->body));
}

static const struct response *read_key(struct storm_client *client, size_t key)
{
    char target[STORM_KEY_BYTES + 1] = "/";
    storm_key(key, target + 1);
    return client_get(client->http, target);
}

/* Reads until there is an answer. */
static const struct response *read_surely(struct storm_client *client, size_t key)
{
    uint64_t begin = kv_clock_ms();
    for (;;) {
        const struct response *response = read_key(client, key);
        enum fate fate = storm_judge(client, STORM_GET, response, begin);
        if (fate == FATE_DONE || atomic_load(&client->storm->failed))
            return response;
        if (kv_clock_ms() - begin > SETTLE_MS_MAX) {
            storm_fail(client, "key %zu has not been readable for %u ms: %ld %s", key, SETTLE_MS_MAX, response->status,
                       response->problem);
            return response;
        }
    }
}

static void check_shows(struct storm_client *client, size_t key, const struct response *response)
{
    if (shows(response, *storm_state_of(client, key)))
        return;
    storm_fail(client, "GET of key %zu should show content %llu, but says %ld, %zu bytes: %.*s", key,
               (unsigned long long)*storm_state_of(client, key), response->status, response->body.bytes,
               (int)(response->body.bytes > 60 ? 60 : response->body.bytes), (const char *)response->body.data);
}

/* ---- writes whose outcome is not known ------------------------------------------------------------------------ */

/* `after[key - first]` is what the write would have left: either all keys show it or none does. */
void storm_settle(struct storm_client *client, const uint64_t *after)
{
    size_t first = (size_t)client->index * STORM_KEYS;
    bool done = true, not_done = true;
    for (size_t i = 0; i < STORM_KEYS; i++) {
        uint64_t before = *storm_state_of(client, first + i);
        if (after[i] == before)
            continue;
        const struct response *response = read_surely(client, first + i);
        if (atomic_load(&client->storm->failed))
            return;
        done &= shows(response, after[i]);
        not_done &= shows(response, before);
        if (!done && !not_done) {
            storm_fail(client, "an unanswered write is there in part: key %zu was %llu, would be %llu, GET: %ld %.*s",
                       first + i, (unsigned long long)before, (unsigned long long)after[i], response->status,
                       (int)(response->body.bytes > 60 ? 60 : response->body.bytes), (const char *)response->body.data);
            return;
        }
    }
    client->landed += done && !not_done;
    if (done)
        memcpy(storm_state_of(client, first), after, STORM_KEYS * sizeof *after);
}

/* ---- single keys ---------------------------------------------------------------------------------------------- */

static long wanted_status(const struct storm_write *write, uint64_t now)
{
    if (!storm_holds(write, now))
        return 412;
    if (write->content == 0)
        return now == 0 ? 404 : 204;
    return now == 0 ? 201 : 200;
}

static const struct response *send_write(struct storm_client *client, const struct storm_write *write)
{
    char target[STORM_KEY_BYTES + 1] = "/", header[96];
    struct kv_buf content = {0};
    struct request request = {.method = write->content == 0 ? "DELETE" : "PUT", .target = target};
    storm_key(write->key, target + 1);
    if (write->content != 0)
        content = content_make(write->content);
    request.has_body = write->content != 0;
    request.body = kv_buf_peek(&content);
    if (write->match.kind != MATCH_NONE)
        request.headers[0] = match_header(&write->match, header);
    const struct response *response = client_send(client->http, &request);
    kv_buf_free(&content);
    return response;
}

static void check_written(struct storm_client *client, const struct storm_write *write, const struct response *response)
{
    uint64_t now = *storm_state_of(client, write->key);
    if (response->status != wanted_status(write, now))
        storm_fail(client, "write of content %llu to key %zu, which holds %llu, match %d on %llu: %ld, not %ld: %.*s",
                   (unsigned long long)write->content, write->key, (unsigned long long)now, (int)write->match.kind,
                   (unsigned long long)write->match_content, response->status, wanted_status(write, now),
                   (int)response->body.bytes, (const char *)response->body.data);
    else if (write->content >= UNIQUE_FROM && response->status != 412 &&
             !response_header_is(response, "X-Deduplicated", "false"))
        storm_fail(client, "content %llu had never been written, but X-Deduplicated is not false",
                   (unsigned long long)write->content);
}

static void write_single(struct storm_client *client, enum storm_op op, const struct storm_write *write)
{
    uint64_t begin = kv_clock_ms(), after[STORM_KEYS];
    size_t first = (size_t)client->index * STORM_KEYS;
    const struct response *response = send_write(client, write);
    enum fate fate = storm_judge(client, op, response, begin);
    if (fate == FATE_DONE || fate == FATE_PRECONDITION) {
        check_written(client, write, response);
        if (fate == FATE_DONE)
            *storm_state_of(client, write->key) = write->content;
    }
    if (fate != FATE_UNCERTAIN || !storm_holds(write, *storm_state_of(client, write->key)))
        return;
    memcpy(after, storm_state_of(client, first), sizeof after);
    after[write->key - first] = write->content;
    storm_settle(client, after);
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

static void read_own(struct storm_client *client)
{
    size_t key = storm_pick_key(client);
    uint64_t begin = kv_clock_ms();
    const struct response *response = read_key(client, key);
    if (storm_judge(client, STORM_GET, response, begin) == FATE_DONE)
        check_shows(client, key, response);
}

/* Somebody else's key: whatever it holds, the bytes must be those of the tag. */
static void peek(struct storm_client *client)
{
    char tag[80];
    uint64_t begin = kv_clock_ms();
    const struct response *response =
        read_key(client, random_below(&client->random, (uint64_t)STORM_CLIENTS * STORM_KEYS));
    if (storm_judge(client, STORM_PEEK, response, begin) != FATE_DONE || response->status == 404)
        return;
    tag[0] = '"';
    sha256_hex(kv_buf_peek(&response->body), tag + 1);
    strcat(tag, "\"");
    if (!response_header_is(response, "ETag", tag))
        storm_fail(client, "the body of %zu bytes hashes to %s, headers: %.*s", response->body.bytes, tag,
                   (int)response->headers.bytes, (const char *)response->headers.data);
}

static bool entry_fits(struct storm_client *client, size_t key, const json_t *entry)
{
    char name[STORM_KEY_BYTES], hash[65];
    struct kv_buf content = content_make(*storm_state_of(client, key));
    storm_key(key, name);
    sha256_hex(kv_buf_peek(&content), hash);
    const char *listed = json_string_value(json_object_get(entry, "key")),
               *listed_hash = json_string_value(json_object_get(entry, "hash"));
    bool fits = listed != NULL && listed_hash != NULL && strcmp(listed, name) == 0 && strcmp(listed_hash, hash) == 0 &&
                json_integer_value(json_object_get(entry, "size")) == (json_int_t)content.bytes;
    kv_buf_free(&content);
    return fits;
}

/* This client's keys, which nobody else changes: the listing must be the model. */
static void list_own(struct storm_client *client)
{
    char target[64];
    size_t first = (size_t)client->index * STORM_KEYS, at = 0;
    snprintf(target, sizeof target, "/keys?limit=1000&prefix=storm/%02u/", client->index);
    uint64_t begin = kv_clock_ms();
    const struct response *response = client_get(client->http, target);
    if (storm_judge(client, STORM_LIST, response, begin) != FATE_DONE)
        return;
    json_t *json = json_loadb((const char *)response->body.data, response->body.bytes, 0, NULL);
    const json_t *keys = json_object_get(json, "keys");
    bool good = json_is_array(keys);
    for (size_t key = first; good && key < first + STORM_KEYS; key++) {
        if (*storm_state_of(client, key) != 0)
            good = entry_fits(client, key, json_array_get(keys, at++));
    }
    if (!good || json_array_size(keys) != at)
        storm_fail(client, "GET %s: %ld, entry %zu of %zu differs from the model", target, response->status, at,
                   json_array_size(keys));
    json_decref(json);
}

/* ---- choosing ------------------------------------------------------------------------------------------------- */

static void write_some(struct storm_client *client, enum storm_op op)
{
    struct storm_write write = {.key = storm_pick_key(client)};
    uint64_t now = *storm_state_of(client, write.key);
    if (op != STORM_DELETE)
        write.content = storm_pick_content(client);
    if (op == STORM_CREATE)
        write.match.kind = MATCH_ABSENT;
    if (op == STORM_REPLACE || (op == STORM_DELETE && now != 0 && random_chance(&client->random, 300)))
        storm_pick_match(client, &write, now);
    write_single(client, op, &write);
}

void storm_operate(struct storm_client *client)
{
    static const unsigned per_mille[STORM_OPS] = {270, 200, 120, 110, 60, 150, 20, 70};
    uint64_t draw = random_below(&client->random, 1000);
    enum storm_op op = STORM_PUT;
    while (draw >= per_mille[op])
        draw -= per_mille[op++];
    if (op == STORM_BATCH)
        storm_write_batch(client);
    else if (op == STORM_LIST)
        list_own(client);
    else if (op == STORM_PEEK)
        peek(client);
    else if (op == STORM_GET)
        read_own(client);
    else
        write_some(client, op);
}
