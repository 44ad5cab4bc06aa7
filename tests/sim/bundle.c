/* tests/sim/bundle.c -- see bundle.h. */
#include "bundle.h"

#include <stdio.h>
#include <stdlib.h>

#include "client.h"
#include "file.h"
#include "kv/log.h"

void bundle_release(void *arg)
{
    struct bundle *bundle = arg;
    if (bundle->op->released++ > 0)
        sim_fail("an operation was released twice");
    bundle->op->bundle = NULL;
    for (size_t i = 0; i < SIM_BATCH_MAX; i++)
        body_file_free(&bundle->uploads[i].given.file);
    free(bundle);
}

static enum kv_err read_upload(void *arg, uint64_t offset, uint8_t *out, size_t bytes)
{
    const struct upload *upload = arg;
    if (offset > upload->readable.bytes || bytes > upload->readable.bytes - offset)
        sim_fail("a router reads what a shard is to read from a file");
    memcpy(out, upload->readable.data + offset, bytes);
    return KV_OK;
}

/* Most of them in a file, behind up to a page of something else; and of these the beginning, up to all of the first piece
 * and more, is in memory. */
static const struct backend_content *upload_new(struct sim *sim, const struct content *content, struct upload *out)
{
    struct random *random = &sim->random;
    struct kv_slice stored = kv_buf_peek(&content->stored);
    bool in_file = random_chance(random, 700);
    size_t in_memory =
        in_file ? (size_t)random_below(random, random_chance(random, 500) ? 100 : stored.bytes) : stored.bytes;
    out->given = content->given;
    out->given.stored.data = NULL;
    out->given.read = read_upload;
    out->given.read_arg = out;
    out->readable = kv_slice(stored.data, in_memory);
    if (!in_file)
        return &out->given;
    out->given.file_from = in_memory;
    out->given.file_offset = random_below(random, 4096);
    out->given.file =
        sim_file_new(sim->router, out->given.file_offset, kv_slice(stored.data + in_memory, stored.bytes - in_memory));
    return &out->given;
}

/* Those of a batch are in memory: its GETs decode them. */
static const struct backend_content *content_of(struct sim *sim, const struct op *op, size_t at, struct upload *upload)
{
    const struct content *content = &client_contents[op->specs[at].content];
    bool large = op->specs[at].kind == BACKEND_PUT && content->stored.bytes > KV_INLINE_BYTES_MAX;
    if (large && op->count == 1 && random_chance(&sim->random, 700))
        return upload_new(sim, content, upload);
    return &content->given;
}

struct bundle *bundle_new(struct sim *sim, struct op *op)
{
    struct bundle *bundle = kv_alloc_zero(1, sizeof *bundle);
    bundle->op = op;
    for (size_t i = 0; i < op->count; i++) {
        const struct spec *spec = &op->specs[i];
        int length =
            snprintf(bundle->tags[i], sizeof bundle->tags[i], "%u", history_tag((size_t)(op - sim->history.ops), i));
        bundle->ops[i] = (struct backend_op){.kind = spec->kind, .key = client_key(spec->key), .match = spec->match};
        bundle->ops[i].match_hash = client_contents[spec->match_content].given.hash;
        bundle->ops[i].content_type = kv_slice(bundle->tags[i], (size_t)length);
        bundle->ops[i].content = content_of(sim, op, i, &bundle->uploads[i]);
    }
    return bundle;
}
