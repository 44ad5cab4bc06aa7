/* tests/bench/workload.c -- see workload.h. */
#include "workload.h"

#include <stdio.h>
#include <stdlib.h>

#include "kv/clock.h"
#include "wire/pack.h"

#define STAMP_BYTES 16u /* key number, value number */
#define POOL_SPARE_BYTES ((size_t)1 << 20)

struct workload {
    struct workload_options options;
    uint64_t random;
    uint64_t filled;
    uint64_t run;   /* what tells the new keys and values of this run from all others */
    uint64_t count; /* values made */
    uint8_t *pool;
    size_t pool_bytes;
};

static const char *const names[WORKLOAD_KINDS] = {"fixed",     "fill", "get",   "put",     "overwrite",
                                                  "duplicate", "mix",  "batch", "msgpack", "list"};

enum workload_kind workload_kind_of(const char *name)
{
    unsigned kind = 0;
    while (kind < WORKLOAD_KINDS && strcmp(names[kind], name) != 0)
        kind++;
    return (enum workload_kind)kind;
}

const char *workload_kind_name(enum workload_kind kind)
{
    return names[kind];
}

static uint64_t next_random(struct workload *workload)
{
    uint64_t z = (workload->random += 0x9e3779b97f4a7c15u); /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t random_below(struct workload *workload, uint64_t end)
{
    return end == 0 ? 0 : next_random(workload) % end;
}

static void fill_pool(struct workload *workload)
{
    static const char words[] = "all records of one loop turn go out in one write and one flush, and ";
    workload->pool_bytes = workload->options.value_bytes + POOL_SPARE_BYTES;
    workload->pool = kv_alloc(workload->pool_bytes + sizeof(uint64_t));
    for (size_t i = 0; i < workload->pool_bytes; i += sizeof(uint64_t)) {
        uint64_t bits = next_random(workload);
        if (workload->options.text && (bits & 7) < 6)
            memcpy(&bits, words + (bits >> 8) % (sizeof words - sizeof bits), sizeof bits);
        memcpy(workload->pool + i, &bits, sizeof bits);
    }
}

struct workload *workload_new(const struct workload_options *options)
{
    struct workload *workload = kv_alloc_zero(1, sizeof *workload);
    workload->options = *options;
    workload->random = options->seed;
    workload->run = options->seed ^ kv_clock_ns();
    fill_pool(workload);
    return workload;
}

void workload_free(struct workload **workload)
{
    if (*workload == NULL)
        return;
    free((*workload)->pool);
    free(*workload);
    *workload = NULL;
}

/* ---- bodies ------------------------------------------------------------------------------------------------------- */

static struct kv_slice pool_slice(struct workload *workload, size_t bytes)
{
    return kv_slice(workload->pool + random_below(workload, workload->pool_bytes - bytes), bytes);
}

/* A value that was never there before: in two parts, since only the first few bytes must be new. */
static void make_value(struct workload *workload, uint64_t key, struct request *out)
{
    uint64_t stamp[2] = {key, workload->run + ++workload->count};
    size_t bytes = workload->options.value_bytes;
    size_t stamped = bytes < STAMP_BYTES ? bytes : STAMP_BYTES;
    kv_buf_append(&out->head, kv_slice(stamp, stamped));
    out->rest = pool_slice(workload, bytes - stamped);
}

/* Printable, so that JSON takes it as a string: six bits per character. */
static void append_text_value(struct workload *workload, struct kv_buf *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    struct kv_slice bytes = pool_slice(workload, workload->options.value_bytes);
    uint8_t *at = kv_buf_reserve(out, bytes.bytes);
    for (size_t i = 0; i < bytes.bytes; i++)
        at[i] = (uint8_t)digits[bytes.data[i] & 63];
    char stamp[24];
    size_t stamped = (size_t)snprintf(stamp, sizeof stamp, "%lx", workload->run + ++workload->count);
    memcpy(at, stamp, stamped < bytes.bytes ? stamped : bytes.bytes);
    out->bytes += bytes.bytes;
}

static size_t print_new_key(struct workload *workload, char *out, size_t out_bytes)
{
    return (size_t)snprintf(out, out_bytes, "n/%lx/%lu", workload->run, ++workload->count);
}

static void make_json_batch(struct workload *workload, struct kv_buf *out)
{
    static const char begin[] = "{\"op\":\"put\",\"key\":\"", middle[] = "\",\"value\":\"", end[] = "\"}";
    kv_buf_append(out, kv_slice_text("["));
    for (size_t i = 0; i < workload->options.batch; i++) {
        char key[64];
        if (i > 0)
            kv_buf_append(out, kv_slice_text(","));
        kv_buf_append(out, kv_slice_text(begin));
        kv_buf_append(out, kv_slice(key, print_new_key(workload, key, sizeof key)));
        kv_buf_append(out, kv_slice_text(middle));
        append_text_value(workload, out);
        kv_buf_append(out, kv_slice_text(end));
    }
    kv_buf_append(out, kv_slice_text("]"));
}

static void make_msgpack_batch(struct workload *workload, struct kv_buf *out)
{
    kv_pack_array(out, workload->options.batch);
    for (size_t i = 0; i < workload->options.batch; i++) {
        char key[64];
        struct request value = {0};
        kv_pack_map(out, 3);
        kv_pack_str(out, kv_slice_text("op"));
        kv_pack_str(out, kv_slice_text("put"));
        kv_pack_str(out, kv_slice_text("key"));
        kv_pack_str(out, kv_slice(key, print_new_key(workload, key, sizeof key)));
        kv_pack_str(out, kv_slice_text("value"));
        make_value(workload, i, &value);
        kv_buf_append(&value.head, value.rest);
        kv_pack_bin(out, kv_buf_peek(&value.head));
        kv_buf_free(&value.head);
    }
}

/* ---- requests ----------------------------------------------------------------------------------------------------- */

/* "/prefix/key": not printf, which would be a tenth of what a small GET takes here. */
static void write_path(const struct workload *workload, uint64_t key, struct request *out)
{
    char digits[20]; /* of UINT64_MAX */
    size_t at = sizeof digits, prefix_bytes = strlen(workload->options.prefix);
    do
        digits[--at] = (char)('0' + key % 10);
    while ((key /= 10) != 0);
    char *end = out->path;
    *end++ = '/';
    end = mempcpy(end, workload->options.prefix, prefix_bytes);
    *end++ = '/';
    end = mempcpy(end, digits + at, sizeof digits - at);
    *end = '\0';
}

static void make_get(struct workload *workload, struct request *out)
{
    uint64_t key = random_below(workload, workload->options.keys);
    out->method = "GET";
    write_path(workload, key, out);
    out->checked = workload->options.value_bytes >= sizeof out->stamp;
    out->stamp = key;
}

static void make_put(struct workload *workload, uint64_t key, struct request *out)
{
    out->method = "PUT";
    write_path(workload, key, out);
    make_value(workload, key, out);
}

static void make_new(struct workload *workload, struct request *out)
{
    out->method = "PUT";
    out->path[0] = '/';
    print_new_key(workload, out->path + 1, sizeof out->path - 1);
    if (workload->options.kind == WORKLOAD_DUPLICATE)
        out->rest = kv_slice(workload->pool, workload->options.value_bytes);
    else
        make_value(workload, 0, out);
}

static void make_batch(struct workload *workload, struct request *out)
{
    bool json = workload->options.kind == WORKLOAD_BATCH;
    out->method = "POST";
    out->content_type = json ? "application/json" : "application/msgpack";
    out->ops = workload->options.batch;
    snprintf(out->path, sizeof out->path, "/batch");
    if (json)
        make_json_batch(workload, &out->head);
    else
        make_msgpack_batch(workload, &out->head);
}

static void make_list(struct workload *workload, struct request *out)
{
    out->method = "GET";
    snprintf(out->path, sizeof out->path, "/keys?limit=100&after=k/%lu",
             random_below(workload, workload->options.keys));
}

bool workload_next(struct workload *workload, struct request *out)
{
    const struct workload_options *options = &workload->options;
    out->head.bytes = 0;
    out->rest = kv_slice(NULL, 0);
    out->content_type = NULL;
    out->checked = false;
    out->ops = 1;
    switch (options->kind) {
    case WORKLOAD_FIXED:
        out->method = "GET";
        memcpy(out->path, options->path, strlen(options->path) + 1);
        return true;
    case WORKLOAD_FILL:
        if (workload->filled == options->keys)
            return false;
        make_put(workload, workload->filled++, out);
        return true;
    case WORKLOAD_GET:
        make_get(workload, out);
        return true;
    case WORKLOAD_OVERWRITE:
        make_put(workload, random_below(workload, options->keys), out);
        return true;
    case WORKLOAD_MIX:
        if (random_below(workload, 5) != 0)
            make_get(workload, out);
        else
            make_put(workload, random_below(workload, options->keys), out);
        return true;
    case WORKLOAD_PUT:
    case WORKLOAD_DUPLICATE:
        make_new(workload, out);
        return true;
    case WORKLOAD_BATCH:
    case WORKLOAD_MSGPACK:
        make_batch(workload, out);
        return true;
    case WORKLOAD_LIST:
        make_list(workload, out);
        return true;
    case WORKLOAD_KINDS:
        break;
    }
    return false;
}

size_t request_body_copy(const struct request *request, size_t offset, size_t bytes, uint8_t *out)
{
    size_t copied = 0;
    if (offset < request->head.bytes) {
        copied = request->head.bytes - offset < bytes ? request->head.bytes - offset : bytes;
        memcpy(out, request->head.data + offset, copied);
    }
    size_t at = offset + copied - request->head.bytes;
    size_t left = request->rest.bytes - at < bytes - copied ? request->rest.bytes - at : bytes - copied;
    if (left > 0)
        memcpy(out + copied, request->rest.data + at, left);
    return copied + left;
}

void request_free(struct request *request)
{
    kv_buf_free(&request->head);
}
