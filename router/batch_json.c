/* router/batch_json.c -- the batch in JSON. See batch.h.
 * Reading:  a flat operation of known members, as nearly all are, is read by json_flat.h. For others the array is cut by a scan that
 *           knows only strings, brackets and commas, and jansson parses the operation on its own. So a tree is never larger than one
 *           operation with its members counted, a fault is always that of one operation, and hostile nesting never reaches a parser. */
#include <jansson.h>
#include <stdio.h>

#include "base64.h"
#include "batch.h"
#include "json.h"
#include "json_flat.h"
#include "key.h"
#include "printable.h"

/* ---- cutting ------------------------------------------------------------------------------------------------------ */

struct scan {
    const uint8_t *at;
    const uint8_t *end;
    bool first;
};

enum scan_step { SCAN_OPERATION, SCAN_END, SCAN_MALFORMED, SCAN_DEEP, SCAN_MANY };

static bool is_space(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

static void skip_space(struct scan *scan)
{
    while (scan->at < scan->end && is_space(*scan->at))
        scan->at++;
}

/* From the opening quote to behind the closing one; false when there is none. */
static bool skip_string(struct scan *scan)
{
    for (scan->at++; scan->at < scan->end; scan->at++) {
        if (*scan->at == '"') {
            scan->at++;
            return true;
        }
        if (*scan->at == '\\')
            scan->at++;
    }
    scan->at = scan->end;
    return false;
}

/* Moves to the comma or bracket that ends the element, which jansson will look at. Brackets are counted, not matched. */
static enum scan_step skip_element(struct scan *scan)
{
    unsigned depth = 1; /* of the array around it */
    unsigned separators = 0;
    while (scan->at < scan->end) {
        uint8_t byte = *scan->at;
        if (depth == 1 && (byte == ',' || byte == ']'))
            return SCAN_OPERATION;
        if (byte == '"') {
            if (!skip_string(scan))
                return SCAN_MALFORMED;
            continue;
        }
        if ((byte == '{' || byte == '[') && ++depth > BATCH_DEPTH_MAX)
            return SCAN_DEEP;
        if ((byte == '}' || byte == ']') && --depth == 0)
            return SCAN_MALFORMED;
        if (byte == ',' && ++separators > BATCH_MEMBERS_MAX)
            return SCAN_MANY;
        scan->at++;
    }
    return SCAN_MALFORMED;
}

static bool scan_begin(struct scan *scan, struct kv_slice body)
{
    static const uint8_t nothing; /* no body has no address, and nothing may be added to that */
    const uint8_t *at = body.bytes == 0 ? &nothing : body.data;
    *scan = (struct scan){at, at + body.bytes, true};
    skip_space(scan);
    if (scan->at == scan->end || *scan->at != '[')
        return false;
    scan->at++;
    return true;
}

/* Behind the closing bracket there may only be white space. */
static enum scan_step scan_finish(struct scan *scan)
{
    scan->at++;
    skip_space(scan);
    return scan->at == scan->end ? SCAN_END : SCAN_MALFORMED;
}

/* Moves to the next operation. Stands on the comma or bracket behind the last one, or behind the first bracket. */
static enum scan_step scan_next(struct scan *scan)
{
    skip_space(scan);
    if (scan->at == scan->end)
        return SCAN_MALFORMED;
    if (*scan->at == ']')
        return scan_finish(scan);
    if (!scan->first && *scan->at++ != ',')
        return SCAN_MALFORMED;
    scan->first = false;
    return SCAN_OPERATION;
}

/* ---- parsing ------------------------------------------------------------------------------------------------------ */

static enum kv_err read_member(const struct batch *batch, const char *name, const json_t *value,
                               struct batch_fields *fields, struct batch_refusal *refusal)
{
    enum batch_member member = batch_member_of(batch, kv_slice_text(name));
    if (member == BATCH_MEMBER_COUNT)
        return batch_refuse_unknown(batch, refusal, kv_slice_text(name));
    if (!json_is_string(value))
        return batch_refuse(batch, refusal, "invalid_request", "\"%s\" is not a string.", name);
    fields->present[member] = true;
    fields->text[member] = kv_slice(json_string_value(value), json_string_length(value));
    return KV_OK;
}

static enum kv_err read_object(struct batch *batch, json_t *object, const struct batch_limits *limits,
                               struct batch_refusal *refusal)
{
    struct batch_fields fields = {0};
    const char *name;
    json_t *value;
    enum kv_err err = KV_OK;
    if (!json_is_object(object))
        return batch_refuse(batch, refusal, "invalid_request", "it is not an object.");
    json_object_foreach(object, name, value) {
        if (err == KV_OK)
            err = read_member(batch, name, value, &fields, refusal);
    }
    return err == KV_OK ? batch_add(batch, &fields, limits, refusal) : err;
}

/* jansson's sentence may quote the body, control characters and all. */
static enum kv_err refuse_malformed(const struct batch *batch, const json_error_t *error, struct batch_refusal *refusal)
{
    char shown[96];
    printable_copy(kv_slice_text(error->text), shown, sizeof(shown));
    return batch_refuse(batch, refusal, "invalid_json", "malformed JSON: %s.", shown);
}

static enum kv_err read_operation(struct batch *batch, struct kv_slice text, const struct batch_limits *limits,
                                  struct batch_refusal *refusal)
{
    json_error_t error;
    json_t *object = json_loadb((const char *)text.data, text.bytes,
                                JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (object == NULL)
        return refuse_malformed(batch, &error, refusal);
    enum kv_err err = read_object(batch, object, limits, refusal);
    json_decref(object);
    return err;
}

static enum kv_err refuse_step(const struct batch *batch, enum scan_step step, struct batch_refusal *refusal)
{
    if (step == SCAN_DEEP)
        return batch_refuse(batch, refusal, "invalid_json", "it is nested deeper than %u levels.", BATCH_DEPTH_MAX);
    if (step == SCAN_MANY)
        return batch_refuse(batch, refusal, "invalid_request", "it has more than %u members.", BATCH_MEMBERS_MAX);
    return batch_refuse(batch, refusal, "invalid_json", "malformed JSON: the array does not go on or end here.");
}

/* ---- an operation ------------------------------------------------------------------------------------------------- */

/* False: it is not flat, or has members that are unknown or come twice. */
static bool read_flat(const struct batch *batch, struct scan *scan, struct json_flat *flat, struct batch_fields *out)
{
    struct scan rest = *scan;
    size_t used;
    if (!json_flat_read(flat, kv_slice(scan->at, (size_t)(scan->end - scan->at)), &used))
        return false;
    rest.at += used;
    skip_space(&rest);
    if (rest.at == rest.end || (*rest.at != ',' && *rest.at != ']'))
        return false;
    for (size_t i = 0; i < flat->count; i++) {
        enum batch_member member = batch_member_of(batch, flat->members[i].name);
        if (member == BATCH_MEMBER_COUNT || out->present[member])
            return false;
        out->present[member] = true;
        out->text[member] = flat->members[i].value;
    }
    *scan = rest;
    return true;
}

static enum kv_err read_any(struct batch *batch, struct scan *scan, const struct batch_limits *limits,
                            struct batch_refusal *refusal)
{
    const uint8_t *from = scan->at;
    enum scan_step step = skip_element(scan);
    if (step != SCAN_OPERATION)
        return refuse_step(batch, step, refusal);
    return read_operation(batch, kv_slice(from, (size_t)(scan->at - from)), limits, refusal);
}

enum kv_err batch_read_json(struct batch *batch, struct kv_slice body, const struct batch_limits *limits,
                            struct batch_refusal *refusal)
{
    struct scan scan;
    struct json_flat flat = {0};
    enum scan_step step;
    enum kv_err err = KV_OK;
    if (!scan_begin(&scan, body))
        return batch_refuse_body(refusal, "invalid_json", "The body is not a JSON array of operations.");
    while (err == KV_OK && (step = scan_next(&scan)) != SCAN_END) {
        struct batch_fields fields = {0};
        if (batch->count == KV_BATCH_OPS_MAX)
            err = batch_refuse_count(refusal);
        else if (step != SCAN_OPERATION)
            err = refuse_step(batch, step, refusal);
        else if (read_flat(batch, &scan, &flat, &fields))
            err = batch_add(batch, &fields, limits, refusal);
        else
            err = read_any(batch, &scan, limits, refusal);
    }
    json_flat_free(&flat);
    return err;
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

/* Text as a string; what is not UTF-8, and what is nearly all control characters, in base64: an answer stays within about
 * twice the bytes of its values. */
static void write_value(struct kv_buf *out, struct kv_slice content)
{
    uint64_t base64_bytes = base64_text_bytes(content.bytes) + 2;
    bool text =
        key_is_utf8(content) && (content.bytes < BATCH_TEXT_BYTES_MIN || json_text_bytes(content) <= base64_bytes);
    json_raw(out, ",\"value\":");
    if (text) {
        json_text(out, content);
    } else {
        json_base64(out, content);
        json_raw(out, ",\"encoding\":\"base64\"");
    }
}

static void write_head(struct kv_buf *out, const struct backend_op_result *result, bool with_refs)
{
    json_raw(out, ",\"hash\":");
    json_hash(out, &result->row.hash);
    json_raw(out, ",\"size\":");
    json_number(out, result->row.size);
    if (with_refs) {
        json_raw(out, ",\"refs\":");
        json_number(out, result->refs);
    }
    json_raw(out, ",\"created_at\":");
    json_number(out, result->row.created_s);
    json_raw(out, ",\"content_type\":");
    json_header_text(out, result->row.content_type);
}

static void write_found(struct kv_buf *out, bool found)
{
    json_raw(out, ",\"found\":");
    json_bool(out, found);
}

static void write_result(struct kv_buf *out, const struct backend_op *op, const struct backend_op_result *result,
                         bool with_refs)
{
    static const char *const openings[] = {[BACKEND_PUT] = "{\"put\":{\"key\":",
                                           [BACKEND_GET] = "{\"get\":{\"key\":",
                                           [BACKEND_HEAD] = "{\"head\":{\"key\":",
                                           [BACKEND_DELETE] = "{\"delete\":{\"key\":"};
    json_raw(out, openings[op->kind]);
    json_text(out, op->key);
    if (op->kind == BACKEND_PUT) {
        json_raw(out, ",\"hash\":");
        json_hash(out, &op->content->hash);
        json_raw(out, ",\"created\":");
        json_bool(out, !result->found);
    } else if (op->kind == BACKEND_DELETE) {
        json_raw(out, ",\"deleted\":");
        json_bool(out, result->found);
    } else {
        if (result->found && op->kind == BACKEND_GET)
            write_value(out, result->content);
        else if (result->found)
            write_head(out, result, with_refs);
        write_found(out, result->found);
    }
    json_raw(out, "}}");
}

void batch_write_json(const struct batch *batch, const struct backend_op_result *results, struct kv_buf *out)
{
    json_raw(out, "{\"results\":[");
    for (size_t i = 0; i < batch->count; i++) {
        if (i > 0)
            json_raw(out, ",");
        write_result(out, &batch->ops[i], &results[i], !batch->hides_refs);
    }
    json_raw(out, "]}");
}
