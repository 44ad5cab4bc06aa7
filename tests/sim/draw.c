/* tests/sim/draw.c -- see draw.h; and the few keys and contents that everything turns around. */
#include "draw.h"

#include <stdio.h>

#include "client.h"
#include "codec.h"
#include "kv/log.h"
#include "nemesis.h"
#include "router.h"

#define GENTLE_WAIT_MS 20000u

/* In byte order. */
static const char *const keys[SIM_KEYS_MAX] = {"a", "a/1", "a/2", "b", "b/1/x", "c", "d", "z"};

struct content client_contents[SIM_CONTENTS_MAX];

/* Small ones that shrink and that do not, empty; from SIM_LARGE on they are staged, the last one in several pieces. */
#define SIM_LARGE 7u
static const size_t content_bytes[SIM_CONTENTS_MAX] = {0, 1, 20, 20, 60, 300, 700, 65600, 66000, 1100000};

void client_contents_init(void)
{
    struct random random = {.state = 42};
    for (unsigned i = 0; i < SIM_CONTENTS_MAX; i++) {
        struct content *content = &client_contents[i];
        for (size_t j = 0; j < content_bytes[i]; j++)
            *kv_buf_reserve(&content->bytes, 1) = (uint8_t)(i == 5 ? 'x' : random_next(&random)),
                                             content->bytes.bytes++;
        content->given.hash = codec_hash(kv_buf_peek(&content->bytes));
        content->given.size = content->bytes.bytes;
        content->given.codec = codec_encode(router_codec(), kv_buf_peek(&content->bytes), &content->stored);
        content->given.stored = kv_buf_peek(&content->stored);
        kv_assert((content->stored.bytes > KV_INLINE_BYTES_MAX) == (i >= SIM_LARGE));
    }
}

int client_content_of(const struct kv_hash *hash)
{
    for (int i = 0; i < SIM_CONTENTS_MAX; i++) {
        if (kv_hash_equal(&client_contents[i].given.hash, hash))
            return i;
    }
    return -1;
}

struct kv_slice client_key(unsigned key)
{
    return kv_slice_text(keys[key]);
}

unsigned client_key_index(struct kv_slice key)
{
    unsigned i = 0;
    while (i < SIM_KEYS_MAX && !kv_slice_equal(client_key(i), key))
        i++;
    return i;
}

/* ---- the kind of run ------------------------------------------------------------------------------------------ */

static uint64_t one_of(struct random *random, const uint64_t *choices, size_t count)
{
    return choices[random_below(random, count)];
}
#define ONE_OF(random, ...)                                                                                            \
    one_of(random, (const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

static void draw_faults(struct config *config, struct random *random)
{
    if (random_chance(random, 60))
        return; /* a fair-weather run */
    config->fault_us_mean = ONE_OF(random, 5000, 15000, 40000, 100000);
    for (size_t i = 0; i < sizeof config->fault_weights / sizeof *config->fault_weights; i++)
        config->fault_weights[i] = random_chance(random, 550) ? (unsigned)random_between(random, 1, 10) : 0;
}

static void draw_gentle(struct config *config, struct random *random)
{
    config->gentle = true;
    config->wait_ms = GENTLE_WAIT_MS;
    config->fault_us_mean = ONE_OF(random, 15000, 40000, 100000);
    memset(config->fault_weights, 0, sizeof config->fault_weights);
    config->fault_weights[NEMESIS_SHARD] = (unsigned)random_between(random, 1, 3);
    config->fault_weights[NEMESIS_LINK] = (unsigned)random_below(random, 3);
}

/* Long enough for what ended to be forgotten, while clients go on. */
static void draw_hang(struct config *config, struct random *random)
{
    config->hang = true;
    config->fault_us_mean = 0;
    config->shard_count = (unsigned)random_between(random, 2, SIM_SHARDS_MAX);
    config->client_count = SIM_CLIENTS_MAX;
    config->op_count = 240;
    config->think_us_max = 500 * SIM_MS;
    config->wait_ms = ONE_OF(random, 40, 200, 1000);
}

void draw_config(struct sim *sim)
{
    struct config *config = &sim->config;
    struct random *random = &sim->random;
    config->shard_count = (unsigned)random_between(random, 1, SIM_SHARDS_MAX);
    config->thread_count = (unsigned)random_between(random, 1, SIM_THREADS_MAX);
    config->client_count = (unsigned)random_between(random, 2, SIM_CLIENTS_MAX);
    config->key_count = (unsigned)random_between(random, 2, SIM_KEYS_MAX);
    config->content_count = (unsigned)random_between(random, 2, SIM_LARGE);
    config->large = random_chance(random, 150);
    config->huge_per_mille = (unsigned)ONE_OF(random, 0, 0, 20, 300);
    config->op_count = (unsigned)random_between(random, 30, config->large ? 60 : 140);
    config->think_us_max = ONE_OF(random, 100, 2000, 20000);
    config->delay_us_max = ONE_OF(random, 50, 500, 3000);
    config->flush_us_max = ONE_OF(random, 200, 2000, 10000);
    config->wait_ms = ONE_OF(random, 40, 200, 1000, 3000);
    config->overlay_bytes = ONE_OF(random, 2500, 5000, 20000);
    config->cancel_per_mille = (unsigned)ONE_OF(random, 0, 0, 50, 200);
    config->batch_per_mille = (unsigned)(config->large ? ONE_OF(random, 0, 100, 500) : ONE_OF(random, 100, 400, 800));
    draw_faults(config, random);
    if (random_chance(random, 150))
        draw_gentle(config, random);
    else if (random_chance(random, 30))
        draw_hang(config, random);
}

/* ---- operations ----------------------------------------------------------------------------------------------- */

static unsigned draw_content(struct sim *sim)
{
    if (sim->config.large && random_chance(&sim->random, 400))
        return SIM_LARGE +
               (random_chance(&sim->random, sim->config.huge_per_mille) ? 2u : (unsigned)random_below(&sim->random, 2));
    return (unsigned)random_below(&sim->random, sim->config.content_count);
}

static enum backend_match draw_match(struct random *random)
{
    static const enum backend_match some[] = {BACKEND_MATCH_ANY, BACKEND_MATCH_HASH, BACKEND_MATCH_HASH,
                                              BACKEND_MATCH_ABSENT};
    return random_chance(random, 750) ? BACKEND_MATCH_NONE : some[random_below(random, 4)];
}

static void draw_spec(struct sim *sim, struct spec *spec, bool batch)
{
    static const enum backend_op_kind kinds[] = {BACKEND_PUT,    BACKEND_PUT, BACKEND_PUT, BACKEND_PUT,
                                                 BACKEND_DELETE, BACKEND_GET, BACKEND_HEAD};
    struct random *random = &sim->random;
    spec->kind = kinds[random_below(random, batch ? 7 : 5)];
    spec->key = (unsigned)random_below(random, sim->config.key_count);
    spec->content = draw_content(sim);
    if (spec->kind == BACKEND_PUT || (spec->kind == BACKEND_DELETE && random_chance(random, 300)))
        spec->match = draw_match(random);
    spec->match_content = draw_content(sim);
}

static void draw_list(struct sim *sim, struct op *op)
{
    op->kind = OP_LIST;
    op->after = (unsigned)random_below(&sim->random, sim->config.key_count + 1);
    op->inclusive = random_chance(&sim->random, 300);
    op->limit = random_chance(&sim->random, 500) ? SIM_LIST_MAX : random_between(&sim->random, 1, 3);
}

/* `limit` of a read: stored bytes that come along. */
static void draw_read(struct sim *sim, struct op *op)
{
    op->kind = OP_READ;
    op->count = 1;
    op->specs[0].key = (unsigned)random_below(&sim->random, sim->config.key_count);
    op->limit = ONE_OF(&sim->random, 0, 5000, KV_PIECE_BYTES_MAX);
}

void draw_op(struct sim *sim, struct op *op)
{
    uint64_t kind = random_below(&sim->random, 1000);
    op->client = (unsigned)random_below(&sim->random, sim->config.client_count);
    if (kind < 300) {
        draw_read(sim, op);
        return;
    }
    if (kind < 350) {
        draw_list(sim, op);
        return;
    }
    bool batch = random_chance(&sim->random, sim->config.batch_per_mille);
    op->kind = OP_TRANSACT;
    op->count = batch ? random_between(&sim->random, 2, SIM_BATCH_MAX) : 1;
    for (size_t i = 0; i < op->count; i++)
        draw_spec(sim, &op->specs[i], batch);
}

void draw_trace(const struct sim *sim, const struct op *op)
{
    static const char *const kinds[] = {"put", "delete", "get", "head"};
    static const char *const matches[] = {"", " if any", " if hash", " if absent"};
    char text[512] = "";
    size_t at = 0;
    for (size_t i = 0; i < op->count && op->kind == OP_TRANSACT; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, " %s %s=%u%s %u;", kinds[op->specs[i].kind],
                               keys[op->specs[i].key], op->specs[i].content, matches[op->specs[i].match],
                               op->specs[i].match_content);
    if (op->kind == OP_READ)
        snprintf(text, sizeof text, " read %s, %zu bytes", keys[op->specs[0].key], op->limit);
    if (op->kind == OP_LIST)
        snprintf(text, sizeof text, " list, %zu behind %u", op->limit, op->after);
    sim_trace(sim, "op %zu of client %u asks router %llu.%u:%s", (size_t)(op - sim->history.ops), op->client,
              (unsigned long long)op->router->epoch, op->client % sim->config.thread_count, text);
}
