/* tests/system/versions.c -- see versions.h. */
#include "versions.h"

#include <stdio.h>
#include <stdlib.h>

enum { KEY_BYTES = 32, VALUE_SPACE = VERSIONS_VALUE_BYTES_MAX + 1 };

static void key_of(size_t i, char out[KEY_BYTES])
{
    snprintf(out, KEY_BYTES, "k/%05zu", i);
}

/* No two keys or versions have the same. */
static struct kv_slice value_of(const struct versions *versions, size_t i, unsigned version, char out[VALUE_SPACE])
{
    snprintf(out, VALUE_SPACE, "%0*zu", (int)versions->value_bytes, i * 1000 + version);
    return kv_slice(out, versions->value_bytes);
}

void versions_init(struct versions *versions, size_t key_count, size_t value_bytes)
{
    CHECK(key_count % VERSIONS_BATCH_KEYS == 0 && value_bytes <= VERSIONS_VALUE_BYTES_MAX);
    *versions = (struct versions){
        .of = kv_alloc_zero(key_count, sizeof(unsigned)), .count = key_count, .value_bytes = value_bytes};
}

void versions_free(struct versions *versions)
{
    free(versions->of);
    *versions = (struct versions){0};
}

static void note_written(struct versions *versions, unsigned version)
{
    for (size_t i = versions->next; i < versions->next + VERSIONS_BATCH_KEYS; i++) {
        versions->there += versions->of[i] == 0;
        versions->of[i] = version;
    }
    versions->next = (versions->next + VERSIONS_BATCH_KEYS) % versions->count;
    versions->last = version;
}

long versions_write(struct versions *versions, struct client *client)
{
    struct batch batch = {0};
    char key[KEY_BYTES], value[VALUE_SPACE];
    unsigned version = versions->last + (versions->next == 0);
    for (size_t i = versions->next; i < versions->next + VERSIONS_BATCH_KEYS; i++) {
        key_of(i, key);
        batch_put(&batch, key, value_of(versions, i, version, value), false, (struct match){MATCH_NONE, ""});
    }
    const struct response *response = batch_send(client, &batch);
    long status = response->status;
    CHECK(status != 0, "batch: no answer: %s", response->problem);
    if (status == 200)
        note_written(versions, version);
    batch_free(&batch);
    return status;
}

static void expect_batch(const struct versions *versions, struct client *client, size_t from)
{
    struct batch batch = {0};
    struct batch_results results;
    char key[KEY_BYTES], value[VALUE_SPACE];
    for (size_t i = from; i < from + VERSIONS_BATCH_KEYS; i++) {
        key_of(i, key);
        batch_get(&batch, key);
    }
    bool read = batch_results_read(batch_send(client, &batch), VERSIONS_BATCH_KEYS, &results);
    CHECK(read, "no answer to a batch of gets");
    for (size_t i = from; i < from + VERSIONS_BATCH_KEYS; i++) {
        const struct batch_result *result = &results.results[i - from];
        struct kv_slice expected = value_of(versions, i, versions->of[i], value);
        CHECK(result->found && kv_slice_equal(kv_buf_peek(&result->value), expected), "key %zu: %s", i,
              result->found ? "another value than was acknowledged" : "gone");
    }
    batch_results_free(&results);
    batch_free(&batch);
}

void versions_expect_all(const struct versions *versions, struct client *client)
{
    for (size_t from = 0; from < versions->count && versions->of[from] != 0; from += VERSIONS_BATCH_KEYS)
        expect_batch(versions, client, from);
}
