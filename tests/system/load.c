/* tests/system/load.c -- see load.h. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>

#include "kv/clock.h"

#define SHARED_CONTENTS 16u
#define STAGED_BYTES 90000u

/* ---- what a write means --------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x) /* splitmix64's finaliser */
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t draw(const struct writer *writer, uint64_t number, unsigned purpose)
{
    return mix(number * 64 + writer->index * 8 + purpose + 1);
}

static unsigned key_of_write(const struct writer *writer, uint64_t number)
{
    return (unsigned)(draw(writer, number, 0) % LOAD_KEYS);
}

static bool write_deletes(const struct writer *writer, uint64_t number)
{
    return number == 0 || draw(writer, number, 1) % 6 == 0;
}

/* The content of a write; malloc'ed inside the buffer. */
static struct kv_buf content_of(const struct writer *writer, uint64_t number)
{
    struct kv_buf buf = {0};
    char words[96];
    uint64_t kind = draw(writer, number, 2) % 16;
    if (kind < 5)
        snprintf(words, sizeof words, "shared content %u", (unsigned)(draw(writer, number, 3) % SHARED_CONTENTS));
    else
        snprintf(words, sizeof words, "writer %u, write %llu", writer->index, (unsigned long long)number);
    kv_buf_append(&buf, kv_slice_text(words));
    size_t filler = kind == 15 ? STAGED_BYTES : kind == 14 ? 5000 : kind < 5 ? 0 : draw(writer, number, 4) % 300;
    uint8_t *at = kv_buf_reserve(&buf, filler + 8);
    for (size_t i = 0; i < filler; i += 8) {
        uint64_t noise = mix(number * 1000003 + i + writer->index);
        memcpy(at + i, &noise, 8);
    }
    buf.bytes += filler;
    return buf;
}

static void target_of(const struct writer *writer, unsigned key, char out[64])
{
    snprintf(out, 64, "/load/%u/%03u", writer->index, key);
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

static const struct response *send_write(struct client *client, struct writer *writer, uint64_t number)
{
    char target[64];
    target_of(writer, key_of_write(writer, number), target);
    uint64_t begin = kv_clock_ms();
    const struct response *response;
    if (write_deletes(writer, number)) {
        response = client_delete(client, target);
    } else {
        struct kv_buf content = content_of(writer, number);
        response = client_put(client, target, kv_buf_peek(&content));
        kv_buf_free(&content);
    }
    uint64_t took = kv_clock_ms() - begin;
    writer->slowest_ms = took > writer->slowest_ms ? took : writer->slowest_ms;
    return response;
}

/* 201, 200, 204 and 404 say whether the key was there: they must agree with what is known, unless a write is unanswered. */
static bool answer_fits(const struct writer *writer, uint64_t number, long status)
{
    const struct load_key *key = &writer->keys[key_of_write(writer, number)];
    bool was_there = !write_deletes(writer, key->acknowledged), known = key->unanswered == 0;
    if (write_deletes(writer, number))
        return known ? status == (was_there ? 204 : 404) : status == 204 || status == 404;
    return known ? status == (was_there ? 200 : 201) : status == 200 || status == 201;
}

static void note_failure(struct writer *writer, uint64_t number, const struct response *response)
{
    if (writer->failure[0] != '\0')
        return;
    snprintf(writer->failure, sizeof writer->failure, "writer %u, write %llu, key %u, delete %d: status %ld: %.*s %s",
             writer->index, (unsigned long long)number, key_of_write(writer, number), write_deletes(writer, number),
             response->status, (int)response->body.bytes, (const char *)response->body.data, response->problem);
}

/* One write until it is answered or given up; false ends the writer. */
static bool write_once(struct client *client, struct writer *writer)
{
    uint64_t number = writer->next++;
    struct load_key *key = &writer->keys[key_of_write(writer, number)];
    for (;;) {
        const struct response *response = send_write(client, writer, number);
        if (answer_fits(writer, number, response->status)) {
            *key = (struct load_key){.acknowledged = number};
            writer->answered++;
            return true;
        }
        bool no_answer = response->status == 0 || response->status == 503;
        bool refused = strstr(response->problem, "refused") != NULL;
        if (!no_answer || writer->on_error == LOAD_FAIL || (writer->on_error == LOAD_RETRY && refused)) {
            note_failure(writer, number, response);
            key->unanswered = number;
            return false;
        }
        key->unanswered = number;
        if (writer->on_error == LOAD_STOP || atomic_load(&writer->stop))
            return false;
    }
}

static void *writer_main(void *arg)
{
    struct writer *writer = arg;
    struct client *client = client_new(writer->server, writer->http);
    while (!atomic_load(&writer->stop) && write_once(client, writer))
        continue;
    client_free(&client);
    return NULL;
}

/* ---- all writers ---------------------------------------------------------------------------------------------- */

void load_init(struct load *load, const struct server *server, unsigned writer_count)
{
    memset(load, 0, sizeof *load);
    load->writer_count = writer_count;
    for (unsigned i = 0; i < writer_count; i++) {
        load->writers[i].server = server;
        load->writers[i].index = i;
        load->writers[i].http = i % 2 == 0 ? HTTP_2 : HTTP_1;
        load->writers[i].next = 1;
    }
}

void load_start(struct load *load, enum load_on_error on_error)
{
    for (unsigned i = 0; i < load->writer_count; i++) {
        struct writer *writer = &load->writers[i];
        atomic_store(&writer->stop, false);
        writer->on_error = on_error;
        CHECK(pthread_create(&writer->thread, NULL, writer_main, writer) == 0);
    }
}

void load_stop(struct load *load)
{
    for (unsigned i = 0; i < load->writer_count; i++)
        atomic_store(&load->writers[i].stop, true);
    for (unsigned i = 0; i < load->writer_count; i++)
        pthread_join(load->writers[i].thread, NULL);
    for (unsigned i = 0; i < load->writer_count; i++)
        CHECK(load->writers[i].failure[0] == '\0', "%s", load->writers[i].failure);
}

uint64_t load_answered(const struct load *load)
{
    uint64_t answered = 0;
    for (unsigned i = 0; i < load->writer_count; i++)
        answered += load->writers[i].answered;
    return answered;
}

/* Whether the answer to GET shows the state after write `number`. */
static bool shows(const struct writer *writer, uint64_t number, const struct response *response)
{
    if (write_deletes(writer, number))
        return response->status == 404;
    struct kv_buf content = content_of(writer, number);
    bool same = response->status == 200 && response_body_is(response, kv_buf_peek(&content));
    kv_buf_free(&content);
    return same;
}

static void verify_key(struct client *client, struct writer *writer, unsigned number)
{
    char target[64];
    struct load_key *key = &writer->keys[number];
    target_of(writer, number, target);
    const struct response *response = client_get(client, target);
    if (key->unanswered != 0 && shows(writer, key->unanswered, response))
        key->acknowledged = key->unanswered; /* it had landed: from now on it must stay */
    CHECK(shows(writer, key->acknowledged, response),
          "%s: write %llu (%s) was acknowledged, %llu (%s) was not answered, but GET says %ld, %zu bytes: %.*s %s",
          target, (unsigned long long)key->acknowledged, write_deletes(writer, key->acknowledged) ? "delete" : "put",
          (unsigned long long)key->unanswered, write_deletes(writer, key->unanswered) ? "delete" : "put",
          response->status, response->body.bytes, (int)(response->body.bytes > 80 ? 80 : response->body.bytes),
          (const char *)response->body.data, response->problem);
    key->unanswered = 0;
}

void load_verify(struct load *load)
{
    for (unsigned i = 0; i < load->writer_count; i++) {
        struct client *client = client_new(load->writers[i].server, HTTP_2);
        for (unsigned key = 0; key < LOAD_KEYS; key++)
            verify_key(client, &load->writers[i], key);
        client_free(&client);
    }
}

static int by_digest(const void *a, const void *b)
{
    return memcmp(a, b, 65);
}

void load_expected(const struct load *load, uint64_t *keys, uint64_t *objects)
{
    char(*digests)[65] = kv_alloc(LOAD_WRITERS_MAX * LOAD_KEYS * sizeof *digests);
    size_t count = 0;
    for (unsigned i = 0; i < load->writer_count; i++) {
        for (unsigned key = 0; key < LOAD_KEYS; key++) {
            const struct writer *writer = &load->writers[i];
            if (write_deletes(writer, writer->keys[key].acknowledged))
                continue;
            struct kv_buf content = content_of(writer, writer->keys[key].acknowledged);
            sha256_hex(kv_buf_peek(&content), digests[count++]);
            kv_buf_free(&content);
        }
    }
    qsort(digests, count, sizeof *digests, by_digest);
    *keys = count;
    *objects = 0;
    for (size_t i = 0; i < count; i++)
        *objects += i == 0 || strcmp(digests[i], digests[i - 1]) != 0;
    free(digests);
}
