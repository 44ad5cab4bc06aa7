/* tests/system/storm_batch.c -- batches of the storm: the model runs them first, the answer must be the same. See storm.h. */
#include <stdlib.h>

#include "content.h"
#include "kv/clock.h"
#include "storm_ops.h"

#define BATCH_STEPS_MAX 40u

struct step {
    bool is_get;
    bool found; /* before the step, as the model says; GET: `write.content` is what it must see */
    struct storm_write write;
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
    step->write.key = storm_pick_key(client);
    uint64_t *now = &plan->after[step->write.key - first];
    step->found = *now != 0;
    step->is_get = random_chance(&client->random, 200);
    if (step->is_get) {
        step->write.content = *now;
        return;
    }
    step->write.content = random_chance(&client->random, 250) ? 0 : storm_pick_content(client);
    if (random_chance(&client->random, plan->count > 8 ? 20 : 200))
        storm_pick_match(client, &step->write, *now);
    if (!storm_holds(&step->write, *now) && plan->refused_at == SIZE_MAX)
        plan->refused_at = at;
    *now = step->write.content;
}

static const struct response *send_plan(struct storm_client *client, const struct plan *plan)
{
    struct batch batch = {0};
    for (size_t i = 0; i < plan->count; i++) {
        const struct storm_write *write = &plan->steps[i].write;
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
        storm_fail(client, "batch of %zu: not the results of that many operations: %.*s", plan->count,
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

void storm_write_batch(struct storm_client *client)
{
    struct plan *plan = kv_alloc_zero(1, sizeof *plan);
    size_t steps = random_chance(&client->random, 100) ? BATCH_STEPS_MAX : random_between(&client->random, 1, 8);
    plan->refused_at = SIZE_MAX;
    memcpy(plan->after, storm_state_of(client, (size_t)client->index * STORM_KEYS), sizeof plan->after);
    while (plan->count < steps)
        plan_step(client, plan);
    uint64_t begin = kv_clock_ms();
    const struct response *response = send_plan(client, plan);
    enum fate fate = storm_judge(client, STORM_BATCH, response, begin);
    if (fate == FATE_DONE) {
        check_results(client, plan, response);
        memcpy(storm_state_of(client, (size_t)client->index * STORM_KEYS), plan->after, sizeof plan->after);
    } else if (fate == FATE_PRECONDITION) {
        check_refused(client, plan, response);
    } else if (fate == FATE_UNCERTAIN && plan->refused_at == SIZE_MAX) {
        storm_settle(client, plan->after);
    }
    free(plan);
}
