/* tests/system/storm_ops.c -- what a client of the storm does, and how it knows that the answer is right: see storm.h. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "batch.h"
#include "content.h"
#include "kv/clock.h"
#include "storm.h"

#define SETTLE_MS_MAX 60000u
#define BATCH_STEPS_MAX 40u
#define UNIQUE_FROM 1000u

/* A write of one key: `content` 0 deletes. */
struct write {
    size_t key;
    uint64_t content;
    struct match match;
    uint64_t match_content; /* MATCH_HASH */
};

/* ---- the model's side ----------------------------------------------------------------------------------------- */

static uint64_t *state_of(struct storm_client *client, size_t key)
{
    return &client->storm->model.content[key];
}

static size_t pick_key(struct storm_client *client)
{
    return (size_t)client->index * STORM_KEYS + random_below(&client->random, STORM_KEYS);
}

static uint64_t pick_content(struct storm_client *client)
{
    if (random_chance(&client->random, 350))
        return 1 + random_below(&client->random, CONTENT_SHARED);
    return UNIQUE_FROM + client->written++ * STORM_CLIENTS + client->index;
}

static bool holds(const struct write *write, uint64_t now)
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

static void match_to(struct write *write, uint64_t content)
{
    struct kv_buf bytes = content_make(content);
    write->match = match_content(kv_buf_peek(&bytes));
    write->match_content = content;
    kv_buf_free(&bytes);
}

/* One in eight conditions is on something else than what is there. */
static void pick_match(struct storm_client *client, struct write *write, uint64_t now)
{
    bool wrong = random_chance(&client->random, 125);
    if (random_chance(&client->random, 300))
        write->match.kind = (now == 0) != wrong ? MATCH_ABSENT : MATCH_ANY;
    else
        match_to(write, now == 0 || wrong ? pick_content(client) : now);
}

/* ---- answers -------------------------------------------------------------------------------------------------- */

/* Counts, judges what can be judged without the model; false when the answer says nothing about the store. */
static enum fate judge(struct storm_client *client, enum storm_op op, const struct response *response, uint64_t begin)
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
        enum fate fate = judge(client, STORM_GET, response, begin);
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
    if (shows(response, *state_of(client, key)))
        return;
    storm_fail(client, "GET of key %zu should show content %llu, but says %ld, %zu bytes: %.*s", key,
               (unsigned long long)*state_of(client, key), response->status, response->body.bytes,
               (int)(response->body.bytes > 60 ? 60 : response->body.bytes), (const char *)response->body.data);
}

/* ---- writes whose outcome is not known ------------------------------------------------------------------------ */

/* `after[key - first]` is what the write would have left: either all keys show it or none does. */
static void settle(struct storm_client *client, const uint64_t *after)
{
    size_t first = (size_t)client->index * STORM_KEYS;
    bool done = true, not_done = true;
    for (size_t i = 0; i < STORM_KEYS; i++) {
        uint64_t before = *state_of(client, first + i);
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
        memcpy(state_of(client, first), after, STORM_KEYS * sizeof *after);
}

/* ---- single keys ---------------------------------------------------------------------------------------------- */

static long wanted_status(const struct write *write, uint64_t now)
{
    if (!holds(write, now))
        return 412;
    if (write->content == 0)
        return now == 0 ? 404 : 204;
    return now == 0 ? 201 : 200;
}

static const struct response *send_write(struct storm_client *client, const struct write *write)
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

static void check_written(struct storm_client *client, const struct write *write, const struct response *response)
{
    uint64_t now = *state_of(client, write->key);
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

static void write_single(struct storm_client *client, enum storm_op op, const struct write *write)
{
    uint64_t begin = kv_clock_ms(), after[STORM_KEYS];
    size_t first = (size_t)client->index * STORM_KEYS;
    const struct response *response = send_write(client, write);
    enum fate fate = judge(client, op, response, begin);
    if (fate == FATE_DONE || fate == FATE_PRECONDITION) {
        check_written(client, write, response);
        if (fate == FATE_DONE)
            *state_of(client, write->key) = write->content;
    }
    if (fate != FATE_UNCERTAIN || !holds(write, *state_of(client, write->key)))
        return;
    memcpy(after, state_of(client, first), sizeof after);
    after[write->key - first] = write->content;
    settle(client, after);
}

/* ---- batches -------------------------------------------------------------------------------------------------- */

struct step {
    bool is_get;
    bool found; /* before the step, as the model says; GET: `write.content` is what it must see */
    struct write write;
};

struct plan {
    struct step steps[BATCH_STEPS_MAX];
    size_t count;
    uint64_t after[STORM_KEYS];
    size_t refused_at; /* count: none */
};

static void plan_step(struct storm_client *client, struct plan *plan)
{
    size_t first = (size_t)client->index * STORM_KEYS, at = plan->count++;
    struct step *step = &plan->steps[at];
    step->write.key = pick_key(client);
    uint64_t *now = &plan->after[step->write.key - first];
    step->found = *now != 0;
    step->is_get = random_chance(&client->random, 200);
    if (step->is_get) {
        step->write.content = *now;
        return;
    }
    step->write.content = random_chance(&client->random, 250) ? 0 : pick_content(client);
    if (random_chance(&client->random, plan->count > 8 ? 20 : 200))
        pick_match(client, &step->write, *now);
    if (!holds(&step->write, *now) && plan->refused_at == SIZE_MAX)
        plan->refused_at = at;
    *now = step->write.content;
}

static const struct response *send_plan(struct storm_client *client, const struct plan *plan)
{
    struct batch batch = {0};
    for (size_t i = 0; i < plan->count; i++) {
        const struct write *write = &plan->steps[i].write;
        char key[STORM_KEY_BYTES];
        storm_key(write->key, key);
        if (plan->steps[i].is_get) {
            batch_get(&batch, key);
        } else if (write->content == 0) {
            batch_delete(&batch, key, write->match);
        } else {
            struct kv_buf content = content_make(write->content);
            batch_put(&batch, key, kv_buf_peek(&content), write->content % 2 == 1, write->match);
            kv_buf_free(&content);
        }
    }
    const struct response *response = batch_send(client->http, &batch);
    batch_free(&batch);
    return response;
}

static bool result_fits(const struct step *step, const struct batch_result *result)
{
    char key[STORM_KEY_BYTES];
    storm_key(step->write.key, key);
    if (!kv_slice_equal(result->key, kv_slice_text(key)) || result->found != step->found)
        return false;
    if (step->is_get)
        return result->kind == RESULT_GET &&
               (!result->found || content_is(step->write.content, kv_buf_peek(&result->value)));
    return result->kind == (step->write.content == 0 ? RESULT_DELETE : RESULT_PUT);
}

static void check_results(struct storm_client *client, const struct plan *plan, const struct response *response)
{
    struct batch_results results;
    if (plan->refused_at != SIZE_MAX) {
        storm_fail(client, "batch was accepted though operation %zu has a condition that does not hold",
                   plan->refused_at);
        return;
    }
    if (!batch_results_read(response, plan->count, &results)) {
        storm_fail(client, "batch of %zu: not the results of http-api.md: %.*s", plan->count,
                   (int)(response->body.bytes > 300 ? 300 : response->body.bytes), (const char *)response->body.data);
        return;
    }
    for (size_t i = 0; i < plan->count; i++) {
        if (!result_fits(&plan->steps[i], &results.results[i]))
            storm_fail(client, "batch of %zu, result %zu is not what the model says: get %d, content %llu, found %d",
                       plan->count, i, plan->steps[i].is_get, (unsigned long long)plan->steps[i].write.content,
                       plan->steps[i].found);
    }
    batch_results_free(&results);
}

static void check_refused(struct storm_client *client, const struct plan *plan, const struct response *response)
{
    size_t index = 0;
    if (plan->refused_at == SIZE_MAX || !batch_refused_at(response, &index) || index != plan->refused_at)
        storm_fail(client, "batch of %zu, condition that does not hold: %zd, but the answer is: %.*s", plan->count,
                   (ssize_t)plan->refused_at, (int)response->body.bytes, (const char *)response->body.data);
}

static void write_batch(struct storm_client *client)
{
    struct plan *plan = kv_alloc_zero(1, sizeof *plan);
    size_t steps = random_chance(&client->random, 100) ? BATCH_STEPS_MAX : random_between(&client->random, 1, 8);
    plan->refused_at = SIZE_MAX;
    memcpy(plan->after, state_of(client, (size_t)client->index * STORM_KEYS), sizeof plan->after);
    while (plan->count < steps)
        plan_step(client, plan);
    uint64_t begin = kv_clock_ms();
    const struct response *response = send_plan(client, plan);
    enum fate fate = judge(client, STORM_BATCH, response, begin);
    if (fate == FATE_DONE) {
        check_results(client, plan, response);
        memcpy(state_of(client, (size_t)client->index * STORM_KEYS), plan->after, sizeof plan->after);
    } else if (fate == FATE_PRECONDITION) {
        check_refused(client, plan, response);
    } else if (fate == FATE_UNCERTAIN && plan->refused_at == SIZE_MAX) {
        settle(client, plan->after);
    }
    free(plan);
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

static void read_own(struct storm_client *client)
{
    size_t key = pick_key(client);
    uint64_t begin = kv_clock_ms();
    const struct response *response = read_key(client, key);
    if (judge(client, STORM_GET, response, begin) == FATE_DONE)
        check_shows(client, key, response);
}

/* Somebody else's key: whatever it holds, the bytes must be those of the tag. */
static void peek(struct storm_client *client)
{
    char tag[80];
    uint64_t begin = kv_clock_ms();
    const struct response *response =
        read_key(client, random_below(&client->random, (uint64_t)STORM_CLIENTS * STORM_KEYS));
    if (judge(client, STORM_PEEK, response, begin) != FATE_DONE || response->status == 404)
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
    struct kv_buf content = content_make(*state_of(client, key));
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
    if (judge(client, STORM_LIST, response, begin) != FATE_DONE)
        return;
    json_t *json = json_loadb((const char *)response->body.data, response->body.bytes, 0, NULL);
    const json_t *keys = json_object_get(json, "keys");
    bool good = json_is_array(keys);
    for (size_t key = first; good && key < first + STORM_KEYS; key++) {
        if (*state_of(client, key) != 0)
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
    struct write write = {.key = pick_key(client)};
    uint64_t now = *state_of(client, write.key);
    if (op != STORM_DELETE)
        write.content = pick_content(client);
    if (op == STORM_CREATE)
        write.match.kind = MATCH_ABSENT;
    if (op == STORM_REPLACE || (op == STORM_DELETE && now != 0 && random_chance(&client->random, 300)))
        pick_match(client, &write, now);
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
        write_batch(client);
    else if (op == STORM_LIST)
        list_own(client);
    else if (op == STORM_PEEK)
        peek(client);
    else if (op == STORM_GET)
        read_own(client);
    else
        write_some(client, op);
}
