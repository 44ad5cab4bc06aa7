/* shard/recover.c -- see recover.h. */
#include "recover.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "journal_replay.h"
#include "kv/child.h"
#include "kv/log.h"

_Noreturn void recovered_end(enum kv_err err, const char *sentence)
{
    kv_error("%s", sentence);
    _exit(err == KV_CORRUPT ? KV_EXIT_CORRUPT : err == KV_INVALID ? KV_EXIT_CONFIG : KV_EXIT_FATAL);
}

_Noreturn void recovered_die(enum kv_err err, const char *what)
{
    char sentence[256];
    snprintf(sentence, sizeof sentence, "%s: %s", what, kv_err_text(err));
    recovered_end(err, sentence);
}

/* ---- the reading half of core_world --------------------------------------------------------------------------- */

static enum kv_err get_key(void *ctx, struct kv_slice key, struct kv_slice *row)
{
    return store_get_key(((struct recovered *)ctx)->store, key, row);
}

static enum kv_err get_object(void *ctx, const struct kv_hash *hash, struct kv_slice *row)
{
    return store_get_object(((struct recovered *)ctx)->store, hash, row);
}

static enum kv_err get_blob(void *ctx, uint64_t object_id, uint64_t offset, uint64_t bytes, struct kv_buf *out)
{
    return store_get_blob(((struct recovered *)ctx)->store, object_id, offset, bytes, out);
}

static enum kv_err seek_key(void *ctx, struct kv_slice from, struct kv_buf *key, struct kv_slice *row)
{
    return store_seek_key(((struct recovered *)ctx)->store, from, key, row);
}

static enum kv_err next_key(void *ctx, struct kv_buf *key, struct kv_slice *row)
{
    return store_next_key(((struct recovered *)ctx)->store, key, row);
}

void recovered_world(struct core_world *world)
{
    world->get_key = get_key;
    world->get_object = get_object;
    world->get_blob = get_blob;
    world->seek_key = seek_key;
    world->next_key = next_key;
}

void recovered_read(struct recovered *recovered)
{
    if (recovered->reading)
        return;
    enum kv_err err = store_read_begin(recovered->store);
    if (err != KV_OK)
        recovered_die(err, "cannot read the store");
    recovered->reading = true;
}

void recovered_read_end(struct recovered *recovered)
{
    if (recovered->reading)
        store_read_end(recovered->store);
    recovered->reading = false;
}

/* ---- replay --------------------------------------------------------------------------------------------------- */

/* The snapshot ends first: a reader would keep the pages that this very transaction replaces. */
static enum kv_err apply_now(struct recovered *recovered, struct core_generation *generation)
{
    recovered_read_end(recovered);
    enum kv_err err = store_apply(recovered->store, generation->rows, &generation->meta, NULL, 0, 0);
    recovered_read(recovered);
    return err;
}

/* Without room it waits: reads go on, and so does what frees. */
static enum kv_err apply_frozen(struct recovered *recovered)
{
    enum kv_err err = apply_now(recovered, recovered->frozen);
    if (err == KV_OK)
        core_applied(recovered->core, &recovered->frozen);
    return err == KV_NO_SPACE ? KV_OK : err;
}

static enum kv_err freeze_and_apply(struct recovered *recovered)
{
    recovered->frozen = core_freeze(recovered->core);
    return apply_frozen(recovered);
}

static enum kv_err on_record(void *ctx, uint64_t position, uint32_t type, struct kv_slice body)
{
    struct recovered *recovered = ctx;
    enum kv_err err = core_replay(recovered->core, position, type, body);
    recovered->records++;
    if (err == KV_OK && core_wants_freeze(recovered->core, false))
        err = freeze_and_apply(recovered);
    return err;
}

static enum kv_err replay(const struct recover_options *options, uint64_t position, char *why, size_t why_bytes,
                          struct recovered *out)
{
    int dir_fd = open(options->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0) {
        snprintf(why, why_bytes, "cannot open the data directory %s: %m", options->path);
        return KV_IO;
    }
    struct journal_options journal = {.dir_fd = dir_fd,
                                      .position = position,
                                      .flush = options->flush,
                                      .flush_interval_ms = options->flush_interval_ms};
    enum kv_err err = options->read_only ? journal_read(dir_fd, position, on_record, out, why, why_bytes)
                                         : journal_open(&journal, on_record, out, why, why_bytes, &out->journal);
    close(dir_fd);
    return err;
}

static enum kv_err finish(struct recovered *recovered, char *why, size_t why_bytes)
{
    enum kv_err err = apply_frozen(recovered);
    if (err != KV_OK)
        snprintf(why, why_bytes, "cannot apply the rest of a generation: %s", kv_err_text(err));
    return err;
}

static enum kv_err read_meta(struct store *store, struct store_meta *meta, struct kv_buf *intents, char *why,
                             size_t why_bytes)
{
    enum kv_err err = store_get_meta(store, meta, intents);
    if (err != KV_OK)
        snprintf(why, why_bytes, "cannot read the store's meta row: %s", kv_err_text(err));
    return err;
}

/* From what is applied, and what is half applied: up to `*position`. */
static enum kv_err make_core(const struct recover_options *options, const struct core_world *world, char *why,
                             size_t why_bytes, struct recovered *out, uint64_t *position)
{
    struct kv_buf intents = {0};
    struct store_meta meta = {0};
    struct store_redo redo = {0};
    enum kv_err err = read_meta(out->store, &meta, &intents, why, why_bytes);
    if (err == KV_OK)
        err = store_get_redo(out->store, why, why_bytes, &redo);
    if (err == KV_OK) { /* ids of uploads are not in it */
        if (redo.meta.object_id_next < meta.object_id_next)
            redo.meta.object_id_next = meta.object_id_next;
        *position = redo.meta.position;
        out->core = core_new(&options->core, world, &redo.meta);
        out->frozen = core_restore(out->core, &redo);
    } else if (err == KV_NOT_FOUND) {
        *position = meta.position;
        out->core = core_new(&options->core, world, &meta);
    }
    kv_buf_free(&intents);
    return err == KV_NOT_FOUND ? KV_OK : err;
}

enum kv_err recover(const struct recover_options *options, const struct core_world *world, char *why, size_t why_bytes,
                    struct recovered *out)
{
    uint64_t position = 0;
    kv_assert(world->ctx == out);
    snprintf(why, why_bytes, "cannot open the store");
    enum kv_err err = store_open(options->path, options->map_bytes, options->read_only, options->identity, why,
                                 why_bytes, &out->store);
    if (err != KV_OK)
        return err;
    store_bound(out->store, options->core.overlay_bytes_max);
    recovered_read(out);
    err = make_core(options, world, why, why_bytes, out, &position);
    if (err == KV_OK && out->frozen != NULL && !options->read_only)
        err = finish(out, why, why_bytes);
    if (err == KV_OK) {
        snprintf(why, why_bytes, "the journal does not fit the store");
        err = replay(options, position, why, why_bytes, out);
    }
    if (err != KV_OK)
        recovered_close(out);
    return err;
}

void recovered_close(struct recovered *recovered)
{
    if (recovered->journal != NULL)
        journal_close(&recovered->journal);
    core_free(&recovered->core);
    core_generation_free(&recovered->frozen);
    if (recovered->store == NULL)
        return;
    recovered_read_end(recovered);
    store_close(&recovered->store);
}
