/* shard/store_check.c -- walks all tables and compares them with each other and with meta.
 * Does:     1. keys: order, rows, every record of keys and tails reached; 2. objects: rows, no two with one id; 3. blobs: every row
 *           belongs to an object, to `sweep` or to `staged`, objects have all of theirs; 4. the totals of meta. Of a store in which a
 *           generation is half applied: the totals that it will have; to whom the blobs of its objects belong is open until then.
 * Owns:     a list of all object ids while it runs (16 bytes each; contents that lie in their rows have none).
 * Promises: reads only; names the first fault in one sentence. What this shard cannot know (references from other
 *           shards' keys) is not checked.
 * Tests:    unit/shard/test_store.c (deliberate damage). */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "blobs.h"
#include "kv/log.h"
#include "rows.h"
#include "store_meta.h"

struct known_object {
    uint64_t id;
    uint64_t stored_bytes;
};

struct check {
    struct store_txn *txn;
    struct kv_buf objects; /* struct known_object, ascending: those that have an id */
    uint64_t keys;
    uint64_t object_rows;
    uint64_t referenced_count; /* rows that keys refer to */
    uint64_t stored_bytes;
    struct store_redo redo; /* rows NULL: nothing is half applied */
    struct kv_buf open_ids; /* uint64_t, ascending: object ids that it changes the owner of */
    char *why;
    size_t why_bytes;
};

__attribute__((format(printf, 2, 3))) static enum kv_err fault(struct check *check, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(check->why, check->why_bytes, format, arguments);
    va_end(arguments);
    return KV_CORRUPT;
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static enum kv_err check_key(struct check *check, const struct longkey_walk *walk, struct kv_slice row,
                             struct kv_buf *before)
{
    struct kv_row decoded;
    struct kv_slice key = kv_slice(walk->key, walk->key_bytes);
    check->keys++;
    if (key.bytes == 0 || (check->keys > 1 && kv_slice_compare(kv_buf_peek(before), key) >= 0))
        return fault(check, "keys: row %" PRIu64 " is out of order", check->keys);
    if (row_decode_key(row, &decoded) != KV_OK || decoded.txn_id == 0)
        return fault(check, "keys: row %" PRIu64 " does not decode", check->keys);
    before->bytes = 0;
    kv_buf_append(before, key);
    return KV_OK;
}

static enum kv_err check_keys(struct check *check)
{
    struct longkey_walk *walk = kv_alloc(sizeof *walk);
    struct kv_buf before = {0};
    struct kv_slice row;
    uint64_t keys = 0, tails = 0;
    enum kv_err err = longkey_seek(check->txn, walk, kv_slice(NULL, 0), &row);
    while (err == KV_OK) {
        err = check_key(check, walk, row, &before);
        if (err == KV_OK)
            err = longkey_next(check->txn, walk, &row);
    }
    if (err == KV_CORRUPT && check->why[0] == '\0')
        fault(check, "tails: a long key behind row %" PRIu64 " leads nowhere", check->keys);
    if (err == KV_NOT_FOUND)
        err = txn_count(check->txn, STORE_KEYS, &keys);
    if (err == KV_OK)
        err = txn_count(check->txn, STORE_TAILS, &tails);
    if (err == KV_OK && walk->records != keys + tails)
        err = fault(check, "tails: %" PRIu64 " records belong to no key", keys + tails - walk->records);
    kv_buf_free(&before);
    free(walk);
    return err;
}

/* ---- objects ----------------------------------------------------------------------------------------------------- */

static enum kv_err check_object(struct check *check, struct kv_slice hash, struct kv_slice value)
{
    struct kv_object object;
    check->object_rows++;
    if (hash.bytes != KV_HASH_BYTES || row_decode_object(value, &object) != KV_OK)
        return fault(check, "objects: row %" PRIu64 " does not decode", check->object_rows);
    struct known_object known = {object.object_id, object.stored_bytes};
    if (object.refs > 0) { /* one that only an open vote keeps is not counted in meta yet */
        check->referenced_count++;
        check->stored_bytes += object.stored_bytes;
    }
    if (object.object_id != 0)
        kv_buf_append(&check->objects, kv_slice(&known, sizeof known));
    return KV_OK;
}

static size_t known_count(const struct check *check)
{
    return check->objects.bytes / sizeof(struct known_object);
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t left = ((const struct known_object *)a)->id, right = ((const struct known_object *)b)->id;
    return (left > right) - (left < right);
}

static enum kv_err check_objects(struct check *check)
{
    struct kv_slice key, value;
    enum kv_err err = txn_seek(check->txn, STORE_OBJECTS, kv_slice(NULL, 0), &key, &value);
    while (err == KV_OK) {
        err = check_object(check, key, value);
        if (err == KV_OK)
            err = txn_next(check->txn, STORE_OBJECTS, &key, &value);
    }
    if (err != KV_NOT_FOUND)
        return err;
    struct known_object *known = (struct known_object *)(void *)check->objects.data;
    size_t count = known_count(check);
    if (count > 1)
        qsort(known, count, sizeof *known, compare_ids);
    for (size_t i = 1; i < count; i++)
        if (known[i].id == known[i - 1].id)
            return fault(check, "objects: two rows have the object id %" PRIu64, known[i].id);
    return KV_OK;
}

/* ---- a half applied generation: what it will have changed ---------------------------------------------------------- */

static int compare_numbers(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static void count_object(struct check *check, const struct kv_object *object, bool comes)
{
    uint64_t sign = comes ? 1 : UINT64_MAX; /* modulo 2^64: minus one */
    if (object->refs > 0) {
        check->referenced_count += sign;
        check->stored_bytes += sign * object->stored_bytes;
    }
    if (object->object_id != 0)
        kv_buf_append(&check->open_ids, kv_slice(&object->object_id, sizeof object->object_id));
}

static enum kv_err lay_key(struct check *check, const struct overlay_row *row)
{
    struct kv_slice before;
    struct kv_row decoded;
    enum kv_err err = longkey_get(check->txn, overlay_key(row), &before);
    if (err != KV_OK && err != KV_NOT_FOUND)
        return err;
    if (!row->tombstone && row_decode_key(overlay_value(row), &decoded) != KV_OK)
        return fault(check, "redo: a key row does not decode");
    check->keys += !row->tombstone;
    check->keys -= err == KV_OK;
    return KV_OK;
}

static enum kv_err lay_object(struct check *check, const struct overlay_row *row)
{
    struct kv_slice value;
    struct kv_object before, object;
    enum kv_err err = txn_get(check->txn, STORE_OBJECTS, overlay_key(row), &value);
    if (err != KV_OK && err != KV_NOT_FOUND)
        return err;
    if (err == KV_OK && row_decode_object(value, &before) == KV_OK)
        count_object(check, &before, false);
    if (!row->tombstone && row_decode_object(overlay_value(row), &object) != KV_OK)
        return fault(check, "redo: an object row does not decode");
    if (!row->tombstone)
        count_object(check, &object, true);
    return KV_OK;
}

static enum kv_err lay_blob(struct check *check, const struct overlay_row *row)
{
    uint64_t id = row_decode_id(overlay_key(row));
    kv_buf_append(&check->open_ids, kv_slice(&id, sizeof id));
    return KV_OK;
}

static enum kv_err lay_redo(struct check *check)
{
    static enum kv_err (*const lay[OVERLAY_TABLES])(struct check *, const struct overlay_row *) = {
        [OVERLAY_KEYS] = lay_key, [OVERLAY_OBJECTS] = lay_object, [OVERLAY_BLOBS] = lay_blob};
    enum kv_err err = KV_OK;
    for (enum overlay_table table = OVERLAY_KEYS; table < OVERLAY_TABLES && err == KV_OK; table++) {
        size_t count;
        const struct overlay_row **rows = overlay_sorted(check->redo.rows, table, &count);
        for (size_t i = 0; i < count && err == KV_OK; i++)
            err = lay[table](check, rows[i]);
        free(rows);
    }
    if (check->open_ids.bytes > 0)
        qsort(check->open_ids.data, check->open_ids.bytes / sizeof(uint64_t), sizeof(uint64_t), compare_numbers);
    return err;
}

/* ---- blobs ------------------------------------------------------------------------------------------------------- */

/* All rows of one id, counted while the walk passes them. */
struct blob_run {
    uint64_t id;
    uint64_t rows;
    uint64_t bytes;
    uint64_t short_rows; /* not full ones */
    bool dense;          /* numbered 0, 1, 2 … */
};

static enum kv_err in_table(struct check *check, enum store_table table, uint64_t id, bool *out)
{
    uint8_t space[8];
    struct kv_slice value;
    enum kv_err err = txn_get(check->txn, table, row_encode_id(id, space), &value);
    if (err == KV_OK && value.bytes != 8)
        return fault(check, "object id %" PRIu64 ": its row in sweep or staged is damaged", id);
    *out = err == KV_OK;
    return err == KV_NOT_FOUND ? KV_OK : err;
}

static enum kv_err check_orphan(struct check *check, const struct blob_run *run)
{
    bool swept = false, staged = false;
    enum kv_err err = in_table(check, STORE_SWEEP, run->id, &swept);
    if (err == KV_OK)
        err = in_table(check, STORE_STAGED, run->id, &staged);
    if (err == KV_OK && !swept && !staged)
        err = fault(check, "blobs: object id %" PRIu64 " has %" PRIu64 " rows and no owner", run->id, run->rows);
    if (err == KV_OK && swept && staged)
        err = fault(check, "object id %" PRIu64 " is in sweep and in staged", run->id);
    return err;
}

static enum kv_err check_owned(struct check *check, const struct blob_run *run, const struct known_object *object)
{
    bool swept = false, staged = false;
    enum kv_err err = in_table(check, STORE_SWEEP, run->id, &swept);
    if (err == KV_OK)
        err = in_table(check, STORE_STAGED, run->id, &staged);
    if (err == KV_OK && (swept || staged))
        err = fault(check, "object id %" PRIu64 " is in use and in %s", run->id, swept ? "sweep" : "staged");
    uint64_t rows = (object->stored_bytes + KV_BLOB_ROW_BYTES - 1) / KV_BLOB_ROW_BYTES;
    uint64_t short_rows = object->stored_bytes % KV_BLOB_ROW_BYTES != 0;
    if (err == KV_OK &&
        (run->rows != rows || run->bytes != object->stored_bytes || !run->dense || run->short_rows != short_rows))
        err = fault(check,
                    "blobs: object id %" PRIu64 " has %" PRIu64 " bytes in %" PRIu64 " rows, not %" PRIu64
                    " bytes in %" PRIu64,
                    run->id, run->bytes, run->rows, object->stored_bytes, rows);
    return err;
}

static bool is_open(const struct check *check, uint64_t id)
{
    size_t count = check->open_ids.bytes / sizeof id;
    return count > 0 && bsearch(&id, check->open_ids.data, count, sizeof id, compare_numbers) != NULL;
}

/* The run has ended: who owns it? `*next` walks the objects beside the blobs, both in id order. */
static enum kv_err check_run(struct check *check, const struct blob_run *run, uint64_t *next)
{
    const struct known_object *known = (const struct known_object *)(const void *)check->objects.data;
    size_t count = known_count(check);
    for (; *next < count && (run->rows == 0 || known[*next].id < run->id); ++*next)
        if (known[*next].stored_bytes > 0 && !is_open(check, known[*next].id))
            return fault(check, "blobs: object id %" PRIu64 " has no rows", known[*next].id);
    if (run->rows == 0)
        return KV_OK;
    const struct known_object *owner = *next < count && known[*next].id == run->id ? &known[(*next)++] : NULL;
    if (is_open(check, run->id))
        return KV_OK;
    return owner == NULL ? check_orphan(check, run) : check_owned(check, run, owner);
}

static enum kv_err check_blobs(struct check *check)
{
    struct blob_run run = {0};
    struct kv_slice key, value;
    uint64_t next = 0;
    enum kv_err err = txn_seek(check->txn, STORE_BLOBS, kv_slice(NULL, 0), &key, &value);
    for (; err == KV_OK; err = txn_next(check->txn, STORE_BLOBS, &key, &value)) {
        uint64_t id;
        uint32_t number;
        if (!blobs_split_key(key, &id, &number) || value.bytes == 0 || value.bytes > KV_BLOB_ROW_BYTES)
            return fault(check, "blobs: a row behind object id %" PRIu64 " is malformed", run.id);
        if (id != run.id && run.rows > 0 && (err = check_run(check, &run, &next)) != KV_OK)
            return err;
        if (id != run.id)
            run = (struct blob_run){.id = id, .dense = true};
        run.dense = run.dense && number == run.rows;
        run.rows++;
        run.bytes += value.bytes;
        run.short_rows += value.bytes != KV_BLOB_ROW_BYTES;
    }
    if (err == KV_NOT_FOUND && run.rows > 0)
        err = check_run(check, &run, &next);
    if (err == KV_OK || err == KV_NOT_FOUND)
        err = check_run(check, &(struct blob_run){0}, &next); /* objects behind the last row */
    return err;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static enum kv_err check_meta(struct check *check)
{
    struct store_meta meta;
    uint64_t node_id_next;
    enum kv_err err = store_meta_get(check->txn, &meta, &node_id_next);
    if (err != KV_OK)
        return err == KV_CORRUPT ? fault(check, "meta: a row is missing or damaged") : err;
    if (check->redo.rows != NULL)
        meta = check->redo.meta;
    const struct known_object *known = (const struct known_object *)(const void *)check->objects.data;
    size_t count = known_count(check);
    uint64_t id_max = count > 0 ? known[count - 1].id : 0;
    if (meta.keys != check->keys)
        return fault(check, "meta: %" PRIu64 " keys, %" PRIu64 " found", meta.keys, check->keys);
    if (meta.objects != check->referenced_count)
        return fault(check, "meta: %" PRIu64 " objects, %" PRIu64 " found", meta.objects, check->referenced_count);
    if (meta.stored_bytes != check->stored_bytes)
        return fault(check, "meta: %" PRIu64 " stored bytes, %" PRIu64 " found", meta.stored_bytes,
                     check->stored_bytes);
    if (id_max >= meta.object_id_next)
        return fault(check, "meta: the next object id is %" PRIu64 ", but %" PRIu64 " is in use", meta.object_id_next,
                     id_max);
    return KV_OK;
}

enum kv_err store_check(struct store *store, char *why, size_t why_bytes)
{
    struct check check = {.txn = store->reader, .why = why, .why_bytes = why_bytes};
    why[0] = '\0';
    enum kv_err err = store_read_begin(store);
    if (err != KV_OK)
        return err;
    err = store_get_redo(store, why, why_bytes, &check.redo);
    if (err == KV_OK || err == KV_NOT_FOUND)
        err = check_keys(&check);
    if (err == KV_OK)
        err = check_objects(&check);
    if (err == KV_OK && check.redo.rows != NULL)
        err = lay_redo(&check);
    if (err == KV_OK)
        err = check_blobs(&check);
    if (err == KV_OK)
        err = check_meta(&check);
    store_read_end(store);
    kv_buf_free(&check.objects);
    kv_buf_free(&check.open_ids);
    store_redo_free(&check.redo);
    if (err != KV_OK && why[0] == '\0')
        snprintf(why, why_bytes, "data.mdb cannot be read: %s", kv_err_text(err));
    return err;
}
