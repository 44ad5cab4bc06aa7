/* tests/system/batch.c -- see batch.h. */
#include "batch.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- asking --------------------------------------------------------------------------------------------------- */

struct match match_content(struct kv_slice content)
{
    struct match match = {.kind = MATCH_HASH};
    sha256_hex(content, match.hash);
    return match;
}

const char *match_header(const struct match *match, char out[96])
{
    static const char *const forms[] = {"", "If-Match: *", "If-Match: \"%s\"", "If-None-Match: *"};
    snprintf(out, 96, match->kind == MATCH_HASH ? "If-Match: \"%s\"" : forms[match->kind], match->hash);
    return out;
}

static void append_text(struct batch *batch, const char *text)
{
    kv_buf_append(&batch->text, kv_slice_text(text));
}

static void append_escaped(struct batch *batch, struct kv_slice value)
{
    char escape[8];
    for (size_t i = 0; i < value.bytes; i++) {
        if (value.data[i] >= 0x20 && value.data[i] != '"' && value.data[i] != '\\') {
            kv_buf_append(&batch->text, kv_slice(value.data + i, 1));
            continue;
        }
        snprintf(escape, sizeof escape, "\\u%04x", value.data[i]);
        append_text(batch, escape);
    }
}

static void append_base64(struct batch *batch, struct kv_slice value)
{
    int space = (int)((value.bytes + 2) / 3 * 4) + 1;
    uint8_t *at = kv_buf_reserve(&batch->text, (size_t)space);
    int bytes = EVP_EncodeBlock(at, value.bytes == 0 ? (const uint8_t *)"" : value.data, (int)value.bytes);
    batch->text.bytes += (size_t)bytes;
}

static void begin(struct batch *batch, const char *op, const char *key)
{
    append_text(batch, batch->count++ == 0 ? "[{\"op\":\"" : ",\n{\"op\":\"");
    append_text(batch, op);
    append_text(batch, "\",\"key\":\"");
    append_text(batch, key);
    append_text(batch, "\"");
}

static void end(struct batch *batch, const struct match *match)
{
    if (match->kind == MATCH_ABSENT)
        append_text(batch, ",\"if_none_match\":\"*\"");
    if (match->kind == MATCH_ANY)
        append_text(batch, ",\"if_match\":\"*\"");
    if (match->kind == MATCH_HASH) {
        append_text(batch, ",\"if_match\":\"");
        append_text(batch, match->hash);
        append_text(batch, "\"");
    }
    append_text(batch, "}");
}

void batch_put(struct batch *batch, const char *key, struct kv_slice value, bool base64, struct match match)
{
    begin(batch, "put", key);
    append_text(batch, base64 ? ",\"encoding\":\"base64\",\"value\":\"" : ",\"value\":\"");
    if (base64)
        append_base64(batch, value);
    else
        append_escaped(batch, value);
    append_text(batch, "\"");
    end(batch, &match);
}

void batch_get(struct batch *batch, const char *key)
{
    begin(batch, "get", key);
    append_text(batch, "}");
}

void batch_delete(struct batch *batch, const char *key, struct match match)
{
    begin(batch, "delete", key);
    end(batch, &match);
}

struct kv_slice batch_body(struct batch *batch)
{
    append_text(batch, batch->count == 0 ? "[]" : "]");
    return kv_buf_peek(&batch->text);
}

const struct response *batch_send(struct client *client, struct batch *batch)
{
    return client_send(client, &(struct request){.method = "POST",
                                                 .target = "/batch",
                                                 .body = batch_body(batch),
                                                 .has_body = true,
                                                 .headers = {"Content-Type: application/json"}});
}

void batch_free(struct batch *batch)
{
    kv_buf_free(&batch->text);
    batch->count = 0;
}

/* ---- reading answers ------------------------------------------------------------------------------------------ */

static bool read_value(const json_t *get, struct kv_buf *out)
{
    const json_t *value = json_object_get(get, "value"), *encoding = json_object_get(get, "encoding");
    if (!json_is_string(value))
        return false;
    struct kv_slice text = kv_slice(json_string_value(value), json_string_length(value));
    if (encoding == NULL) {
        kv_buf_append(out, text);
        return true;
    }
    if (!json_is_string(encoding) || strcmp(json_string_value(encoding), "base64") != 0 || text.bytes % 4 != 0)
        return false;
    int bytes = EVP_DecodeBlock(kv_buf_reserve(out, text.bytes + 1), text.data, (int)text.bytes);
    if (bytes < 0)
        return false;
    size_t padding = 0;
    while (padding < 2 && padding < text.bytes && text.data[text.bytes - 1 - padding] == '=')
        padding++;
    out->bytes += (size_t)bytes - padding;
    return true;
}

static bool read_flag(const json_t *object, const char *name, bool *out)
{
    const json_t *flag = json_object_get(object, name);
    *out = json_is_true(flag);
    return json_is_boolean(flag);
}

static bool read_result(const json_t *object, struct batch_result *out)
{
    const json_t *put = json_object_get(object, "put"), *get = json_object_get(object, "get"),
                 *gone = json_object_get(object, "delete"),
                 *any = put != NULL   ? put
                        : get != NULL ? get
                                      : gone;
    const json_t *key = json_object_get(any, "key"), *hash = json_object_get(any, "hash");
    if (json_object_size(object) != 1 || !json_is_string(key))
        return false;
    out->key = kv_slice(json_string_value(key), json_string_length(key));
    out->kind = put != NULL ? RESULT_PUT : get != NULL ? RESULT_GET : RESULT_DELETE;
    if (!read_flag(any, put != NULL ? "created" : get != NULL ? "found" : "deleted", &out->found))
        return false;
    if (get != NULL)
        return !out->found || read_value(get, &out->value);
    if (put == NULL)
        return true;
    out->found = !out->found;
    snprintf(out->hash, sizeof out->hash, "%s", json_is_string(hash) ? json_string_value(hash) : "");
    return json_string_length(hash) == 64;
}

bool batch_results_read(const struct response *response, size_t count, struct batch_results *out)
{
    json_t *json = json_loadb((const char *)response->body.data, response->body.bytes, 0, NULL);
    const json_t *array = json_object_get(json, "results");
    *out = (struct batch_results){.json = json};
    bool good = response->status == 200 && json_is_array(array) && json_array_size(array) == count;
    out->results = kv_alloc_zero(count + 1, sizeof *out->results);
    for (; good && out->count < count; out->count++)
        good = read_result(json_array_get(array, out->count), &out->results[out->count]);
    if (!good)
        batch_results_free(out);
    return good;
}

bool batch_refused_at(const struct response *response, size_t *out)
{
    static const char words[] = "peration ";
    const char *at = memmem(response->body.data, response->body.bytes, words, sizeof words - 1);
    size_t left = at == NULL ? 0 : response->body.bytes - (size_t)(at - (const char *)response->body.data);
    size_t index = 0, digits = 0;
    for (size_t i = sizeof words - 1; i < left && at[i] >= '0' && at[i] <= '9' && digits < 6; i++, digits++)
        index = index * 10 + (size_t)(at[i] - '0');
    if (digits == 0)
        return false;
    *out = index;
    return true;
}

void batch_results_free(struct batch_results *results)
{
    for (size_t i = 0; i < results->count; i++)
        kv_buf_free(&results->results[i].value);
    free(results->results);
    json_decref(results->json);
    *results = (struct batch_results){0};
}
