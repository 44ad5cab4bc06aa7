/* router/api_put.c -- PUT /{key}: stores the body, answers when it is durable.
 * Does:     looks at headers, then size; hashes and encodes (contents above HTTP_INLINE_BYTES_MAX on the worker thread, from
 *           memory or from the file that body.h put them into, where that may have begun as they came); compares
 *           X-Content-Sha256; then write.h; offers the cache what was written.
 * Decides:  a Content-Encoding other than identity and a Content-Range are refused with 400: the body is the value, whole and
 *           as it is, and no client shall believe otherwise.
 * Tests:    http/test_http_values.c, http/test_http_large.c, http/test_http_disconnects.c. */
#include <stdlib.h>

#include "answer.h"
#include "api.h"
#include "body.h"
#include "codec.h"
#include "content_type.h"
#include "digest.h"
#include "kv/log.h"
#include "list.h"
#include "thread.h"
#include "write.h"

_Static_assert(HTTP_INLINE_BYTES_MAX <= BODY_MEMORY_BYTES_SCARCE, "a body in work was read by the loop");

static bool is_whole(struct exchange *exchange)
{
    size_t ranges;
    http_header(exchange, H2O_TOKEN_CONTENT_RANGE, &ranges);
    return ranges == 0 && !http_body_is_encoded(exchange);
}

/* Answers and returns false when a header or the size is not what it should be. Of several Content-Types, whichever were stored, somebody
 * else would take another (RFC 9110, 8.3). */
static bool check(struct exchange *exchange, struct kv_slice *content_type)
{
    size_t declared, types;
    struct kv_hash hash;
    struct kv_slice declaration = http_header_named(exchange, "x-content-sha256", &declared);
    uint64_t bytes_max = exchange->thread->server->settings->value_bytes_max;
    struct kv_slice given = list_trim(http_header(exchange, H2O_TOKEN_CONTENT_TYPE, &types));
    if (types > 1)
        answer_error(exchange, 400, "invalid_request", "A value has one Content-Type; there are several.");
    else if (content_type_check(given, content_type) != KV_OK)
        answer_error(exchange, 400, "invalid_request",
                     "Content-Type is longer than %u bytes or holds control characters.", KV_CONTENT_TYPE_BYTES_MAX);
    else if (!is_whole(exchange))
        answer_error(exchange, 400, "invalid_request",
                     "Content-Encoding and Content-Range are not supported on PUT: send the value as it is.");
    else if (declared > 0 && digest_parse(declaration, &hash) != KV_OK)
        answer_error(exchange, 400, "invalid_request", "X-Content-Sha256 is not 64 hex digits.");
    else if (http_body(exchange).bytes > bytes_max)
        answer_error(exchange, 413, "too_large", "The value has %zu bytes, MAX_VALUE_BYTES allows %lu.",
                     http_body(exchange).bytes, bytes_max);
    else
        return true;
    return false;
}

/* The next GET of a key that is read shall not ask the shards for what is at hand here. Keys that nobody reads stay out: they would
 * push others out. */
static void keep(const struct write *write, const struct backend_op_result *result)
{
    struct exchange *exchange = write->exchange;
    const struct backend_content *stored = &write->content;
    struct kv_object object = {.size = stored->size,
                               .stored_bytes = stored->stored.bytes,
                               .codec = stored->codec,
                               .refs = result->refs,
                               .bytes = stored->stored};
    struct kv_slice content = http_body(exchange);
    if (!write->keep || stored->stored.data == NULL || !cache_wants(exchange->thread->cache, &object))
        return;
    if (object.codec == KV_CODEC_RAW)
        content = kv_slice(object.bytes.data + codec_index_bytes(object.size), object.size);
    cache_put_written(exchange->thread->cache, write->since, result->proof, write->op.key, &result->row, &object,
                      content);
}

static void on_stored(struct write *write, const struct backend_op_result *result)
{
    struct exchange *exchange = write->exchange;
    keep(write, result);
    char body[DIGEST_HEX_BYTES + 1];
    char tag[ETAG_BYTES_MAX];
    digest_hex(&write->content.hash, body);
    body[DIGEST_HEX_BYTES] = '\n';
    struct kv_slice hex = answer_copy(exchange, kv_slice(body, DIGEST_HEX_BYTES));
    answer_field(exchange, HPACK_ETAG,
                 answer_copy(exchange, kv_slice(tag, etag_write(&write->content.hash, false, tag))));
    answer_field(exchange, HPACK_X_CONTENT_SHA256, hex);
    answer_field(exchange, HPACK_X_HASH, hex);
    answer_field(exchange, HPACK_X_HASH_ALGORITHM, kv_slice_text("sha256"));
    if (grant_sees_all(&exchange->grant))
        answer_field(exchange, HPACK_X_DEDUPLICATED, kv_slice_text(result->existed ? "true" : "false"));
    answer_body(exchange, result->found ? 200 : 201, "text/plain", kv_slice(body, sizeof(body)));
}

/* A part of the stored form of a content in a file: the index is in memory, the frames are where the content was. */
static enum kv_err read_stored(void *arg, uint64_t offset, uint8_t *out, size_t bytes)
{
    const struct work_job *job = arg;
    struct kv_slice index = kv_buf_peek(&job->stored);
    if (offset < index.bytes) {
        size_t taken = index.bytes - offset < bytes ? index.bytes - offset : bytes;
        memcpy(out, index.data + offset, taken);
        out += taken;
        bytes -= taken;
        offset += taken;
    }
    return body_file_read(job->file, job->file_offset + (offset - index.bytes), out, bytes);
}

/* What is to be stored. A form that shrank to what travels inside the write comes to memory as a whole. */
static enum kv_err set_content(struct write *write)
{
    struct work_job *job = write->job;
    struct backend_content *content = &write->content;
    content->hash = job->hash;
    content->codec = job->codec;
    if (job->file != NULL && job->stored_bytes <= KV_INLINE_BYTES_MAX) {
        size_t frame_bytes = job->stored_bytes - job->stored.bytes;
        enum kv_err err =
            body_file_read(job->file, job->file_offset, kv_buf_reserve(&job->stored, frame_bytes), frame_bytes);
        if (err != KV_OK)
            return err;
        job->stored.bytes += frame_bytes;
        body_file_free(&job->file);
    }
    content->stored = kv_buf_peek(&job->stored);
    if (job->file != NULL) {
        content->stored = kv_slice(NULL, job->stored_bytes);
        content->read = read_stored;
        content->read_arg = job;
        content->file = job->file;
        content->file_from = job->stored.bytes;
        content->file_offset = job->file_offset;
    }
    return KV_OK;
}

/* The content is hashed and encoded. */
static void store(struct write *write)
{
    enum kv_err err = write->job->err != KV_OK ? write->job->err : set_content(write);
    if (err != KV_OK) {
        answer_failure(write->exchange, err);
        return;
    }
    struct kv_hash declared_hash;
    size_t declared;
    struct kv_slice declaration = http_header_named(write->exchange, "x-content-sha256", &declared);
    if (declared > 0) {
        kv_assert(digest_parse(declaration, &declared_hash) == KV_OK);
        if (!kv_hash_equal(&declared_hash, &write->job->hash)) {
            answer_error(write->exchange, 400, "invalid_request",
                         "The value does not hash to X-Content-Sha256; nothing was stored.");
            return;
        }
    }
    write_start(write);
}

static void on_encoded(struct work_job *job)
{
    struct write *write = job->arg;
    write->job_queued = false;
    write->job_counted = true;
    if (write->exchange != NULL)
        store(write);
    write_drop(write);
}

/* What the cache knows of the key is asked for next: that it lies far away in memory costs nothing while there is this to do. */
static void encode_here(struct write *write)
{
    struct work_job *job = write->job;
    struct router_thread *thread = write->exchange->thread;
    job->content = http_body(write->exchange);
    uint64_t place = cache_fetch_place(thread->cache, write->op.key);
    job->hash = codec_hash(job->content);
    cache_fetch_entry(thread->cache, place);
    job->codec = codec_encode(thread->codec, job->content, &job->stored);
    store(write);
}

/* By the worker, who has begun already or begins now. */
static enum kv_err have_encoded(struct write *write)
{
    struct exchange *exchange = write->exchange;
    struct work_job *begun = body_take_job(exchange->req);
    struct work_job *job = begun != NULL ? begun : write->job;
    job->on_done = on_encoded;
    job->arg = write;
    if (begun != NULL) {
        write->job = begun;
        work_arrived(begun, begun->content.bytes);
        return KV_OK;
    }
    job->content = http_body(exchange);
    job->file = body_take_file(exchange->req, &job->file_offset);
    if (job->file != NULL)
        job->content.data = NULL; /* libh2o's mapping dies with the request */
    job->receiver = &exchange->thread->worked;
    return work_submit(write->work, job);
}

static void encode(struct write *write)
{
    if (http_body(write->exchange).bytes <= HTTP_INLINE_BYTES_MAX) {
        encode_here(write);
        return;
    }
    if (have_encoded(write) != KV_OK) {
        answer_failure(write->exchange, KV_OVERLOADED);
        return;
    }
    write->holders++;
    write->job_queued = true;
}

void api_put(struct exchange *exchange)
{
    struct kv_slice content_type;
    if (!check(exchange, &content_type))
        return;
    struct write *write = write_new(exchange, BACKEND_PUT, content_type);
    if (write == NULL)
        return;
    write->content.size = http_body(exchange).bytes;
    write->op.content = &write->content;
    write->on_written = on_stored;
    encode(write);
}
