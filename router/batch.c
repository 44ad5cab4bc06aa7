/* router/batch.c -- see batch.h. This file: what the members of an operation may be, and who owns what they become. */
#include "batch.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base64.h"
#include "content_type.h"
#include "digest.h"
#include "key.h"
#include "kv/log.h"
#include "list.h"
#include "printable.h"

#define BATCH_BUCKETS 4096u

static const struct {
    const char *name;
    const char *ops; /* that may have it */
} members[BATCH_MEMBER_COUNT] = {
#define MEMBER(name, text, ops) {text, ops},
    BATCH_MEMBERS(MEMBER)
#undef MEMBER
};

static const struct {
    const char *name;
    enum backend_op_kind kind;
} kinds[] = {{"put", BACKEND_PUT}, {"get", BACKEND_GET}, {"head", BACKEND_HEAD}, {"delete", BACKEND_DELETE}};

/* ---- refusals ----------------------------------------------------------------------------------------------------- */

enum kv_err batch_refuse(const struct batch *batch, struct batch_refusal *refusal, const char *code,
                         const char *sentence, ...)
{
    va_list arguments;
    *refusal = (struct batch_refusal){.status = 400, .code = code};
    int used = snprintf(refusal->sentence, sizeof(refusal->sentence), "Operation %zu: ", batch->count);
    va_start(arguments, sentence);
    vsnprintf(refusal->sentence + used, sizeof(refusal->sentence) - (size_t)used, sentence, arguments);
    va_end(arguments);
    return KV_INVALID;
}

enum kv_err batch_refuse_body(struct batch_refusal *refusal, const char *code, const char *sentence)
{
    *refusal = (struct batch_refusal){.status = 400, .code = code};
    snprintf(refusal->sentence, sizeof(refusal->sentence), "%s", sentence);
    return KV_INVALID;
}

enum kv_err batch_refuse_count(struct batch_refusal *refusal)
{
    *refusal = (struct batch_refusal){.status = 413, .code = "too_large"};
    snprintf(refusal->sentence, sizeof(refusal->sentence), "A batch has at most %u operations.", KV_BATCH_OPS_MAX);
    return KV_TOO_LARGE;
}

enum kv_err batch_refuse_unknown(const struct batch *batch, struct batch_refusal *refusal, struct kv_slice name)
{
    char shown[PRINTABLE_NAME_BYTES];
    printable_copy(name, shown, sizeof(shown));
    return batch_refuse(batch, refusal, "invalid_request", "there is no member \"%s\"%s.", shown,
                        batch->format == BATCH_MSGPACK && strcmp(shown, "encoding") == 0
                            ? " in MessagePack: values are bin or str"
                            : "");
}

/* ---- members ------------------------------------------------------------------------------------------------------ */

enum batch_member batch_member_of(const struct batch *batch, struct kv_slice name)
{
    for (unsigned i = 0; i < BATCH_MEMBER_COUNT; i++)
        if (kv_slice_equal(name, kv_slice_text(members[i].name)))
            return i == BATCH_ENCODING && batch->format == BATCH_MSGPACK ? BATCH_MEMBER_COUNT : (enum batch_member)i;
    return BATCH_MEMBER_COUNT;
}

const char *batch_member_name(enum batch_member member)
{
    return members[member].name;
}

static enum kv_err read_kind(const struct batch *batch, const struct batch_fields *fields, struct backend_op *op,
                             struct batch_refusal *refusal)
{
    const char *name = NULL;
    if (!fields->present[BATCH_OP])
        return batch_refuse(batch, refusal, "invalid_request", "the member \"op\" is missing.");
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (!kv_slice_equal(fields->text[BATCH_OP], kv_slice_text(kinds[i].name)))
            continue;
        name = kinds[i].name;
        op->kind = kinds[i].kind;
    }
    if (name == NULL)
        return batch_refuse(batch, refusal, "invalid_request", "\"op\" is not one of put, get, head, delete.");
    for (unsigned i = 0; i < BATCH_MEMBER_COUNT; i++)
        if (fields->present[i] && strstr(members[i].ops, name) == NULL)
            return batch_refuse(batch, refusal, "invalid_request", "a %s has no member \"%s\".", name, members[i].name);
    if (op->kind == BACKEND_PUT && !fields->present[BATCH_VALUE])
        return batch_refuse(batch, refusal, "invalid_request", "the member \"value\" is missing.");
    return KV_OK;
}

static enum kv_err read_key(const struct batch *batch, const struct batch_fields *fields, struct backend_op *op,
                            struct batch_refusal *refusal)
{
    const char *why = NULL;
    if (!fields->present[BATCH_KEY])
        return batch_refuse(batch, refusal, "invalid_request", "the member \"key\" is missing.");
    switch (key_check(fields->text[BATCH_KEY], &why)) {
    case KV_OK:
        op->key = fields->text[BATCH_KEY];
        return KV_OK;
    case KV_NOT_FOUND:
        return batch_refuse(batch, refusal, "invalid_key", "the key is empty.");
    case KV_TOO_LARGE:
        return batch_refuse(batch, refusal, "invalid_key", "the key is longer than %u bytes.", KV_KEY_BYTES_MAX);
    default:
        return batch_refuse(batch, refusal, "invalid_key", "the key %s.", why);
    }
}

static enum kv_err read_condition(const struct batch *batch, const struct batch_fields *fields, struct backend_op *op,
                                  struct batch_refusal *refusal)
{
    struct kv_slice any = kv_slice_text("*");
    struct kv_slice match = fields->text[BATCH_IF_MATCH];
    bool absent = fields->present[BATCH_IF_NONE_MATCH];
    if (absent && !kv_slice_equal(fields->text[BATCH_IF_NONE_MATCH], any))
        return batch_refuse(batch, refusal, "invalid_request", "\"if_none_match\" is not \"*\".");
    if (absent && fields->present[BATCH_IF_MATCH])
        return batch_refuse(batch, refusal, "invalid_request",
                            "\"if_match\" and \"if_none_match\" exclude each other.");
    if (absent)
        op->match = BACKEND_MATCH_ABSENT;
    else if (!fields->present[BATCH_IF_MATCH])
        op->match = BACKEND_MATCH_NONE;
    else if (kv_slice_equal(match, any))
        op->match = BACKEND_MATCH_ANY;
    else if (digest_parse(match, &op->match_hash) == KV_OK)
        op->match = BACKEND_MATCH_HASH;
    else
        return batch_refuse(batch, refusal, "invalid_request", "\"if_match\" is neither \"*\" nor 64 hex digits.");
    return KV_OK;
}

static enum kv_err read_content_type(const struct batch *batch, const struct batch_fields *fields,
                                     struct backend_op *op, struct batch_refusal *refusal)
{
    if (content_type_check(fields->text[BATCH_CONTENT_TYPE], &op->content_type) == KV_OK)
        return KV_OK;
    return batch_refuse(batch, refusal, "invalid_request",
                        "\"content_type\" is longer than %u bytes or holds control characters.",
                        KV_CONTENT_TYPE_BYTES_MAX);
}

/* ---- values ------------------------------------------------------------------------------------------------------- */

/* The bucket where `hash` is or would be. */
static struct batch_content **find_content(const struct batch *batch, const struct kv_hash *hash)
{
    size_t bucket = ((size_t)hash->bytes[0] << 8 | hash->bytes[1]) % BATCH_BUCKETS;
    struct batch_content **at = &batch->contents[bucket];
    while (*at != NULL && !kv_hash_equal(&(*at)->content.hash, hash))
        at = &(*at)->next;
    return at;
}

static void add_content(struct batch *batch, struct codec *codec, struct kv_slice value, struct backend_op *op)
{
    struct kv_hash hash = codec_hash(value);
    struct batch_content **at = find_content(batch, &hash);
    if (*at == NULL) {
        struct batch_content *content = kv_alloc_zero(1, sizeof(*content));
        content->content.hash = hash;
        content->content.size = value.bytes;
        content->content.codec = codec_encode(codec, value, &content->stored);
        content->content.stored = kv_buf_peek(&content->stored);
        *at = content;
    }
    op->content = &(*at)->content;
}

static enum kv_err read_value(struct batch *batch, const struct batch_fields *fields, const struct batch_limits *limits,
                              struct backend_op *op, struct batch_refusal *refusal)
{
    struct kv_slice value = fields->text[BATCH_VALUE];
    struct kv_buf decoded = {0};
    enum kv_err err = KV_OK;
    if (fields->present[BATCH_ENCODING]) {
        if (!kv_slice_equal(fields->text[BATCH_ENCODING], kv_slice_text("base64")))
            return batch_refuse(batch, refusal, "invalid_request", "\"encoding\" is not \"base64\".");
        err = base64_decode(value, &decoded);
        value = kv_buf_peek(&decoded);
    }
    if (err != KV_OK) {
        batch_refuse(batch, refusal, "invalid_request", "\"value\" is not base64 (RFC 4648, section 4, with padding).");
    } else if (value.bytes > limits->value_bytes_max) {
        batch_refuse(batch, refusal, "too_large", "the value has %zu bytes, MAX_VALUE_BYTES allows %lu.", value.bytes,
                     limits->value_bytes_max);
        refusal->status = 413;
        err = KV_TOO_LARGE;
    } else {
        add_content(batch, limits->codec, value, op);
    }
    kv_buf_free(&decoded);
    return err;
}

/* ---- operations --------------------------------------------------------------------------------------------------- */

/* Takes copies of what the operation borrows. */
static void append(struct batch *batch, const struct backend_op *op)
{
    if (batch->count == batch->capacity) {
        batch->capacity = batch->capacity == 0 ? 16 : 2 * batch->capacity;
        batch->ops = kv_realloc(batch->ops, batch->capacity * sizeof(*batch->ops));
    }
    struct backend_op *kept = &batch->ops[batch->count++];
    *kept = *op;
    kept->key.data = kv_copy(op->key);
    kept->content_type.data = kv_copy(op->content_type);
}

enum kv_err batch_add(struct batch *batch, const struct batch_fields *fields, const struct batch_limits *limits,
                      struct batch_refusal *refusal)
{
    struct backend_op op = {0};
    if (batch->count == KV_BATCH_OPS_MAX)
        return batch_refuse_count(refusal);
    enum kv_err err = read_kind(batch, fields, &op, refusal);
    if (err == KV_OK)
        err = read_key(batch, fields, &op, refusal);
    if (err == KV_OK)
        err = read_condition(batch, fields, &op, refusal);
    if (err == KV_OK && op.kind == BACKEND_PUT)
        err = read_content_type(batch, fields, &op, refusal);
    if (err == KV_OK && op.kind == BACKEND_PUT)
        err = read_value(batch, fields, limits, &op, refusal);
    if (err == KV_OK)
        append(batch, &op);
    return err;
}

void batch_init(struct batch *batch, enum batch_format format)
{
    *batch = (struct batch){.format = format};
    batch->contents = kv_alloc_zero(BATCH_BUCKETS, sizeof(struct batch_content *));
}

static void free_contents(struct batch_content *first)
{
    while (first != NULL) {
        struct batch_content *next = first->next;
        kv_buf_free(&first->stored);
        free(first);
        first = next;
    }
}

void batch_free(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        free((void *)(uintptr_t)batch->ops[i].key.data);
        free((void *)(uintptr_t)batch->ops[i].content_type.data);
    }
    for (size_t i = 0; batch->contents != NULL && i < BATCH_BUCKETS; i++)
        free_contents(batch->contents[i]);
    free(batch->contents);
    free(batch->ops);
    *batch = (struct batch){0};
}

/* ---- formats ------------------------------------------------------------------------------------------------------ */

static bool ends_with(struct kv_slice text, const char *suffix)
{
    size_t bytes = strlen(suffix);
    return text.bytes >= bytes && list_is(kv_slice(text.data + text.bytes - bytes, bytes), suffix);
}

enum kv_err batch_format_of(struct kv_slice content_type, enum batch_format *out)
{
    static const struct {
        const char *type;
        enum batch_format format;
    } types[] = {
        {"", BATCH_JSON},
        {"application/json", BATCH_JSON},
        {"text/json", BATCH_JSON},
        {"text/plain", BATCH_JSON},
        {"application/x-www-form-urlencoded", BATCH_JSON}, /* what curl says by itself */
        {"application/msgpack", BATCH_MSGPACK},
        {"application/x-msgpack", BATCH_MSGPACK},
        {"application/vnd.msgpack", BATCH_MSGPACK},
    };
    struct kv_slice type = {NULL, 0};
    list_next(&content_type, ';', &type);
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (list_is(type, types[i].type)) {
            *out = types[i].format;
            return KV_OK;
        }
    }
    if (!ends_with(type, "+json"))
        return KV_INVALID;
    *out = BATCH_JSON;
    return KV_OK;
}

enum kv_err batch_read(struct batch *batch, struct kv_slice body, const struct batch_limits *limits,
                       struct batch_refusal *refusal)
{
    if (batch->format == BATCH_MSGPACK)
        return batch_read_msgpack(batch, body, limits, refusal);
    return batch_read_json(batch, body, limits, refusal);
}

void batch_write(const struct batch *batch, const struct backend_op_result *results, struct kv_buf *out)
{
    if (batch->format == BATCH_MSGPACK)
        batch_write_msgpack(batch, results, out);
    else
        batch_write_json(batch, results, out);
}

const char *batch_content_type(enum batch_format format)
{
    return format == BATCH_MSGPACK ? "application/msgpack" : "application/json";
}

/* ---- results that outlive their callback -------------------------------------------------------------------------- */

uint64_t batch_results_bytes(const struct batch *batch, const struct backend_op_result *results)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < batch->count; i++)
        bytes += results[i].content.bytes + results[i].row.content_type.bytes;
    return bytes;
}

static struct kv_slice keep(struct kv_buf *buf, struct kv_slice bytes)
{
    struct kv_slice kept = kv_slice(buf->data + buf->bytes, bytes.bytes);
    kv_buf_append(buf, bytes); /* within what was reserved: `data` stays where it is */
    return kept;
}

void batch_results_copy(const struct batch *batch, const struct backend_op_result *results, struct batch_results *out)
{
    *out = (struct batch_results){.results = kv_alloc(batch->count * sizeof(*results))};
    memcpy(out->results, results, batch->count * sizeof(*results));
    kv_buf_reserve(&out->bytes, batch_results_bytes(batch, results) + 1);
    for (size_t i = 0; i < batch->count; i++) {
        out->results[i].content = keep(&out->bytes, results[i].content);
        out->results[i].row.content_type = keep(&out->bytes, results[i].row.content_type);
    }
}

void batch_results_free(struct batch_results *results)
{
    free(results->results);
    kv_buf_free(&results->bytes);
    *results = (struct batch_results){0};
}
