/* Goal: what clients see of keys and batches is strictly serializable, also while processes are killed: some order of all
 * operations, each at an instant between its question and its answer, explains every answer.
 * Method: threads work on very few keys at once and record what they asked, when, and what came back (history.h): PUT, GET, DELETE,
 * compare-and-set by If-Match, create by If-None-Match on SOLO keys; the same and batches, which join them, on TEAM keys. Every
 * value is another one. Processes die meanwhile (killer.h). After each round, on fresh keys, the checker looks for that order. */
#include <criterion/criterion.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "batch.h"
#include "checker.h"
#include "fate.h"
#include "killer.h"
#include "kv/clock.h"

#define SHARDS 4u
#define CLIENTS 10u
#define SOLO 3u
#define TEAM 3u
#define KEYS (SOLO + TEAM)
#define STEPS_MAX 4u

struct linear;
struct linear_client {
    struct linear *linear;
    unsigned index;
    struct random random;
    struct client *http;
    uint32_t last_seen[KEYS];
    pthread_t thread;
};

struct linear {
    struct server *server;
    unsigned round;
    struct history history;
    struct linear_client clients[CLIENTS];
    atomic_uint values;
    atomic_ulong answered;
    atomic_ulong uncertain;
    atomic_bool stop;
    pthread_mutex_t mutex;
    char failure[512];
};

TestSuite(linear, .fini = harness_close, .timeout = 600);

/* ---- names and values ----------------------------------------------------------------------------------------- */

static void key_name(const struct linear *linear, unsigned key, char out[48])
{
    snprintf(out, 48, "linear/%u/%u", linear->round, key);
}

static struct kv_slice content_of(uint32_t value, char space[32])
{
    snprintf(space, 32, "value %u", value);
    return kv_slice_text(space);
}

static uint32_t value_of(struct kv_slice content)
{
    char space[32];
    unsigned value = 0;
    snprintf(space, sizeof space, "%.*s", (int)(content.bytes < 31 ? content.bytes : 31), (const char *)content.data);
    return sscanf(space, "value %u", &value) == 1 ? value : UINT32_MAX; /* never written: the checker will say so */
}

static void fail(struct linear_client *client, const char *what, const struct response *response)
{
    struct linear *linear = client->linear;
    pthread_mutex_lock(&linear->mutex);
    if (linear->failure[0] == '\0')
        snprintf(linear->failure, sizeof linear->failure, "%s: status %ld: %.*s %s", what, response->status,
                 (int)(response->body.bytes > 200 ? 200 : response->body.bytes), (const char *)response->body.data,
                 response->problem);
    pthread_mutex_unlock(&linear->mutex);
    atomic_store(&linear->stop, true);
}

/* ---- one operation -------------------------------------------------------------------------------------------- */

static struct history_step pick_step(struct linear_client *client, unsigned key)
{
    struct history_step step = {.kind = STEP_GET, .key = key};
    uint64_t draw = random_below(&client->random, 100);
    if (draw < 35)
        return step;
    step.kind = STEP_WRITE;
    step.value = draw < 50 ? 0 : atomic_fetch_add(&client->linear->values, 1) + 1;
    if (draw >= 75 && client->last_seen[key] != 0) {
        step.match = HISTORY_HOLDS;
        step.match_value = client->last_seen[key];
    } else if (draw >= 65) {
        step.match = HISTORY_ABSENT;
    }
    return step;
}

static struct match match_of(const struct history_step *step)
{
    char space[32];
    if (step->match == HISTORY_HOLDS)
        return match_content(content_of(step->match_value, space));
    return (struct match){.kind = step->match == HISTORY_ABSENT ? MATCH_ABSENT : MATCH_NONE};
}

static const struct response *send_single(struct linear_client *client, const struct history_step *step)
{
    char target[49] = "/", header[96], space[32];
    struct request request = {.method = "GET", .target = target};
    struct match match = match_of(step);
    key_name(client->linear, step->key, target + 1);
    if (step->kind == STEP_WRITE) {
        request.method = step->value == 0 ? "DELETE" : "PUT";
        request.has_body = step->value != 0;
        request.body = content_of(step->value, space);
        request.headers[0] = match.kind == MATCH_NONE ? NULL : match_header(&match, header);
    }
    return client_send(client->http, &request);
}

static void read_single(const struct response *response, struct history_step *step)
{
    if (step->kind == STEP_GET)
        step->value = response->status == 404 ? 0 : value_of(kv_buf_peek(&response->body));
    else
        step->existed = response->status == 200 || response->status == 204;
}

static const struct response *send_team(struct linear_client *client, const struct history_op *op)
{
    struct batch batch = {0};
    char key[48], space[32];
    for (size_t i = 0; i < op->step_count; i++) {
        const struct history_step *step = &op->steps[i];
        key_name(client->linear, step->key, key);
        if (step->kind == STEP_GET)
            batch_get(&batch, key);
        else if (step->value == 0)
            batch_delete(&batch, key, match_of(step));
        else
            batch_put(&batch, key, content_of(step->value, space), false, match_of(step));
    }
    const struct response *response = batch_send(client->http, &batch);
    batch_free(&batch);
    return response;
}

static bool read_team(const struct response *response, struct history_op *op)
{
    struct batch_results results;
    if (op->outcome == HISTORY_PRECONDITION)
        return batch_refused_at(response, &op->refused_at) && op->refused_at < op->step_count;
    if (!batch_results_read(response, op->step_count, &results))
        return false;
    for (size_t i = 0; i < op->step_count; i++) {
        struct history_step *step = &op->steps[i];
        if (step->kind == STEP_GET)
            step->value = results.results[i].found ? value_of(kv_buf_peek(&results.results[i].value)) : 0;
        else
            step->existed = results.results[i].found;
    }
    batch_results_free(&results);
    return true;
}

static void remember(struct linear_client *client, const struct history_op *op)
{
    for (size_t i = 0; i < op->step_count; i++)
        client->last_seen[op->steps[i].key] = op->steps[i].value;
}

static bool changes(const struct history_op *op)
{
    bool writes = false;
    for (size_t i = 0; i < op->step_count; i++)
        writes |= op->steps[i].kind == STEP_WRITE;
    return writes;
}

static void record(struct linear_client *client, struct history_op *op, const struct response *response, bool batch)
{
    static const enum history_outcome outcomes[] = {
        [FATE_DONE] = HISTORY_DONE, [FATE_PRECONDITION] = HISTORY_PRECONDITION, [FATE_UNCERTAIN] = HISTORY_UNCERTAIN};
    enum fate fate = fate_of(response);
    if (fate == FATE_REFUSED || (fate == FATE_UNCERTAIN && !changes(op))) {
        sleep_ms(3);
        return;
    }
    if (fate == FATE_WRONG) {
        fail(client, batch ? "batch" : "single key", response);
        return;
    }
    op->outcome = outcomes[fate];
    if (fate == FATE_UNCERTAIN) {
        op->returned = HISTORY_OPEN;
        atomic_fetch_add(&client->linear->uncertain, 1);
    } else if (batch && !read_team(response, op)) {
        fail(client, "results", response);
        return;
    } else if (!batch && fate == FATE_DONE) {
        read_single(response, &op->steps[0]);
    }
    if (fate == FATE_DONE)
        remember(client, op);
    atomic_fetch_add(&client->linear->answered, fate != FATE_UNCERTAIN);
    history_add(&client->linear->history, op);
}

static void operate(struct linear_client *client)
{
    struct history_step steps[STEPS_MAX];
    struct history_op op = {.steps = steps, .step_count = 1};
    unsigned key = (unsigned)random_below(&client->random, KEYS);
    bool batch = key >= SOLO && random_chance(&client->random, 600);
    if (batch)
        op.step_count = random_between(&client->random, 1, STEPS_MAX);
    for (size_t i = 0; i < op.step_count; i++)
        steps[i] = pick_step(client, batch ? SOLO + (unsigned)random_below(&client->random, TEAM) : key);
    op.invoked = kv_clock_ns();
    const struct response *response = batch ? send_team(client, &op) : send_single(client, &steps[0]);
    op.returned = kv_clock_ns();
    record(client, &op, response, batch);
}

static void *client_main(void *arg)
{
    struct linear_client *client = arg;
    while (!atomic_load(&client->linear->stop))
        operate(client);
    return NULL;
}

/* ---- rounds --------------------------------------------------------------------------------------------------- */

static void run_round(struct linear *linear, struct killer *killer, unsigned ms, unsigned pause_ms)
{
    uint64_t until = kv_clock_ms() + ms;
    atomic_store(&linear->stop, false);
    for (unsigned i = 0; i < CLIENTS; i++) {
        memset(linear->clients[i].last_seen, 0, sizeof linear->clients[i].last_seen);
        CHECK(pthread_create(&linear->clients[i].thread, NULL, client_main, &linear->clients[i]) == 0);
    }
    while (kv_clock_ms() < until && !atomic_load(&linear->stop)) {
        if (killer->prey != 0)
            killer_strike(killer);
        killer_sleep(killer, (unsigned)random_between(&killer->random, pause_ms / 2, pause_ms * 3 / 2));
    }
    atomic_store(&linear->stop, true);
    killer_heal(killer);
    for (unsigned i = 0; i < CLIENTS; i++)
        pthread_join(linear->clients[i].thread, NULL);
    CHECK(linear->failure[0] == '\0', "%s", linear->failure);
}

static void run_rounds(unsigned prey, unsigned rounds, unsigned ms, uint64_t seed)
{
    static char why[16384];
    struct linear *linear = kv_alloc_zero(1, sizeof *linear);
    struct killer killer;
    size_t checked = 0;
    uint64_t checking_ms = 0;
    pthread_mutex_init(&linear->mutex, NULL);
    linear->server = server_start((struct server_opts){.shards = SHARDS, .settings = {"ROUTER_THREADS=2"}});
    killer_init(&killer, linear->server, prey, seed);
    for (unsigned i = 0; i < CLIENTS; i++)
        linear->clients[i] = (struct linear_client){
            .linear = linear, .index = i, .random = {seed * 100 + i}, .http = client_new(linear->server, HTTP_2)};
    for (; linear->round < rounds; linear->round++) {
        history_init(&linear->history);
        run_round(linear, &killer, ms, 250);
        uint64_t begin = kv_clock_ms();
        enum checker_verdict verdict = checker_run(&linear->history, why, sizeof why);
        checking_ms += kv_clock_ms() - begin;
        CHECK(verdict == CHECKER_YES, "seed %llu, round %u: %s: %s", (unsigned long long)seed, linear->round,
              verdict == CHECKER_NO ? "not linearizable" : "the checker gave up", why);
        checked += linear->history.count;
        history_free(&linear->history);
    }
    fprintf(stderr,
            "linear: seed %llu, %u kills, %u stops; %zu operations checked, %lu of them unanswered; checker %llu ms\n",
            (unsigned long long)seed, killer_kills(&killer), killer.stops, checked, atomic_load(&linear->uncertain),
            (unsigned long long)checking_ms);
    CHECK(atomic_load(&linear->answered) > 100 * (unsigned long)rounds, "too few answers to show anything");
    for (unsigned i = 0; i < CLIENTS; i++)
        client_free(&linear->clients[i].http);
    free(linear);
}

Test(linear, without_faults)
{
    run_rounds(0, 2, 1000, 11);
}

Test(linear, while_shards_die)
{
    run_rounds(PREY_SHARDS, 2, 2000, 12);
}

Test(linear, while_the_router_dies)
{
    run_rounds(PREY_ROUTER, 2, 2000, 13);
}

Test(linear, while_anything_dies)
{
    run_rounds(PREY_EVERY, 4, 1500, 14);
}
