/* tests/sim/disk.c -- see disk.h. The ordered maps are struct overlay, which has its own tests. */
#include "disk.h"

#include <stdlib.h>

#include "kv/log.h"
#include "rows.h"

void disk_init(struct disk *disk)
{
    *disk = (struct disk){0};
    heap_init(&disk->heap);
    struct heap *before = heap_enter(&disk->heap);
    disk->rows = overlay_new();
    disk->meta.object_id_next = 1;
    heap_enter(before);
}

void disk_free(struct disk *disk)
{
    heap_free_all(&disk->heap);
}

/* ---- journal -------------------------------------------------------------------------------------------------- */

uint64_t disk_append(struct disk *disk, uint32_t type, struct kv_slice body, uint64_t stamp)
{
    struct heap *before = heap_enter(&disk->heap);
    if (disk->count == disk->capacity) {
        disk->capacity = disk->capacity * 2 + 64;
        disk->records = kv_realloc(disk->records, disk->capacity * sizeof *disk->records);
    }
    disk->records[disk->count++] = (struct disk_record){type, disk->bytes.bytes, body.bytes, stamp};
    kv_buf_append(&disk->bytes, body);
    heap_enter(before);
    return disk->count;
}

struct kv_slice disk_body(const struct disk *disk, uint64_t position)
{
    const struct disk_record *record = &disk->records[position - 1];
    return kv_slice(disk->bytes.data + record->offset, record->bytes);
}

void disk_cut(struct disk *disk, struct random *random)
{
    uint64_t kept = random_chance(random, 500) ? disk->durable : random_between(random, disk->durable, disk->count);
    if (kept < disk->count)
        disk->bytes.bytes = disk->records[kept].offset;
    disk->count = kept;
    disk->durable = kept;
}

/* ---- sets of ids ---------------------------------------------------------------------------------------------- */

static bool id_remove(uint64_t *ids, size_t *count, uint64_t id)
{
    for (size_t i = 0; i < *count; i++) {
        if (ids[i] != id)
            continue;
        ids[i] = ids[--*count];
        return true;
    }
    return false;
}

static void id_add(uint64_t **ids, size_t *count, size_t *capacity, uint64_t id)
{
    for (size_t i = 0; i < *count; i++) {
        if ((*ids)[i] == id)
            return;
    }
    if (*count == *capacity) {
        *capacity = *capacity * 2 + 8;
        *ids = kv_realloc(*ids, *capacity * sizeof **ids);
    }
    (*ids)[(*count)++] = id;
}

static void add_sweep(struct disk *disk, uint64_t id)
{
    id_add(&disk->sweep, &disk->sweep_count, &disk->sweep_capacity, id);
}

/* An id that is not staged was adopted, or never written: not ours to sweep. */
static void unstage(struct disk *disk, uint64_t id)
{
    if (id_remove(disk->staged, &disk->staged_count, id))
        add_sweep(disk, id);
}

/* ---- store ---------------------------------------------------------------------------------------------------- */

static void apply_key(struct disk *disk, const struct overlay_row *row)
{
    if (row->tombstone)
        overlay_forget(disk->rows, OVERLAY_KEYS, overlay_key(row));
    else
        overlay_put(disk->rows, OVERLAY_KEYS, overlay_key(row), overlay_value(row), 0);
}

static struct kv_object decode(const struct overlay_row *row)
{
    struct kv_object object = {0};
    if (row != NULL && !row->tombstone) {
        enum kv_err err = row_decode_object(overlay_value(row), &object);
        kv_assert(err == KV_OK);
    }
    return object;
}

static void apply_object(struct disk *disk, const struct overlay_row *row)
{
    struct kv_object old = decode(overlay_get(disk->rows, OVERLAY_OBJECTS, overlay_key(row))), now = decode(row);
    if (old.object_id != 0 && old.object_id != now.object_id && old.stored_bytes > 0)
        add_sweep(disk, old.object_id);
    if (row->tombstone) {
        overlay_forget(disk->rows, OVERLAY_OBJECTS, overlay_key(row));
        return;
    }
    overlay_put(disk->rows, OVERLAY_OBJECTS, overlay_key(row), overlay_value(row), 0);
    if (now.object_id != 0)
        id_remove(disk->staged, &disk->staged_count, now.object_id);
}

static void apply_blob(struct disk *disk, const struct overlay_row *row)
{
    if (row->tombstone)
        unstage(disk, row_decode_id(overlay_key(row)));
    else
        overlay_put(disk->rows, OVERLAY_BLOBS, overlay_key(row), overlay_value(row), 0);
}

/* At most `rows_max` rows. */
static void apply_rows(struct disk *disk, const struct overlay *generation, size_t rows_max)
{
    static void (*const apply_row[OVERLAY_TABLES])(struct disk * disk, const struct overlay_row *row) = {
        [OVERLAY_KEYS] = apply_key, [OVERLAY_OBJECTS] = apply_object, [OVERLAY_BLOBS] = apply_blob};
    for (enum overlay_table table = OVERLAY_KEYS; table < OVERLAY_TABLES; table++) {
        size_t count;
        const struct overlay_row **rows = overlay_sorted(generation, table, &count);
        for (size_t i = 0; i < count && rows_max > 0; i++, rows_max--)
            apply_row[table](disk, rows[i]);
        free(rows);
    }
}

void disk_apply(struct disk *disk, const struct core_generation *generation)
{
    kv_assert(generation->meta.position <= disk->durable);
    kv_assert(disk->redo.rows == NULL || disk->redo.meta.position == generation->meta.position);
    struct heap *before = heap_enter(&disk->heap);
    apply_rows(disk, generation->rows, SIZE_MAX);
    disk->meta = generation->meta;
    disk->intents.bytes = 0;
    kv_buf_append(&disk->intents, generation->meta.intents);
    disk->meta.intents = kv_buf_peek(&disk->intents);
    store_redo_free(&disk->redo);
    heap_enter(before);
}

static void copy_rows(const struct overlay *from, struct overlay *to)
{
    for (enum overlay_table table = OVERLAY_KEYS; table < OVERLAY_TABLES; table++) {
        size_t count;
        const struct overlay_row **rows = overlay_sorted(from, table, &count);
        for (size_t i = 0; i < count; i++) {
            if (rows[i]->tombstone)
                overlay_tombstone(to, table, overlay_key(rows[i]), 0);
            else
                overlay_put(to, table, overlay_key(rows[i]), overlay_value(rows[i]), 0);
        }
        free(rows);
    }
}

static void copy_redo(const struct overlay *rows, const struct store_meta *meta, struct store_redo *out)
{
    *out = (struct store_redo){.rows = overlay_new(), .meta = *meta};
    copy_rows(rows, out->rows);
    kv_buf_append(&out->intents, meta->intents);
    out->meta.intents = kv_buf_peek(&out->intents);
}

void disk_apply_half(struct disk *disk, const struct core_generation *generation, struct random *random)
{
    kv_assert(generation->meta.position <= disk->durable);
    struct heap *before = heap_enter(&disk->heap);
    if (disk->redo.rows == NULL)
        copy_redo(generation->rows, &generation->meta, &disk->redo);
    apply_rows(disk, generation->rows, random_below(random, overlay_rows(generation->rows) + 1));
    heap_enter(before);
}

bool disk_get_redo(const struct disk *disk, struct store_redo *out)
{
    if (disk->redo.rows == NULL)
        return false;
    copy_redo(disk->redo.rows, &disk->redo.meta, out);
    uint64_t object_id_next = disk_meta(disk).object_id_next;
    if (out->meta.object_id_next < object_id_next)
        out->meta.object_id_next = object_id_next;
    return true;
}

void disk_stage(struct disk *disk, const struct store_piece *piece)
{
    struct heap *before = heap_enter(&disk->heap);
    uint8_t space[8];
    struct kv_slice id = row_encode_id(piece->object_id, space);
    const struct overlay_row *row = overlay_get(disk->rows, OVERLAY_BLOBS, id);
    struct kv_buf whole = {0};
    if (row != NULL)
        kv_buf_append(&whole, overlay_value(row));
    kv_assert(whole.bytes <= piece->offset);
    if (whole.bytes < piece->offset) { /* an earlier piece met a full disk: nobody will refer to this */
        size_t hole = piece->offset - whole.bytes;
        memset(kv_buf_reserve(&whole, hole), 0, hole);
        whole.bytes += hole;
    }
    kv_buf_append(&whole, piece->bytes);
    overlay_put(disk->rows, OVERLAY_BLOBS, id, kv_buf_peek(&whole), 0);
    kv_buf_free(&whole);
    id_add(&disk->staged, &disk->staged_count, &disk->staged_capacity, piece->object_id);
    heap_enter(before);
}

void disk_unstage(struct disk *disk, uint64_t object_id)
{
    struct heap *before = heap_enter(&disk->heap);
    unstage(disk, object_id);
    heap_enter(before);
}

static bool is_among(uint64_t id, const uint64_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

void disk_sweep(struct disk *disk, const uint64_t *held, size_t held_count, size_t count)
{
    struct heap *before = heap_enter(&disk->heap);
    for (size_t i = 0; i < disk->sweep_count && count > 0;) {
        uint64_t id = disk->sweep[i];
        if (is_among(id, held, held_count)) {
            i++;
            continue;
        }
        uint8_t space[8];
        overlay_forget(disk->rows, OVERLAY_BLOBS, row_encode_id(id, space));
        disk->sweep[i] = disk->sweep[--disk->sweep_count];
        count--;
    }
    heap_enter(before);
}

/* As the store, above all ids that have bytes: a staged content may have had one that no record ever named. */
struct store_meta disk_meta(const struct disk *disk)
{
    struct store_meta meta = disk->meta;
    size_t count;
    const struct overlay_row **rows = overlay_unsorted(disk->rows, OVERLAY_BLOBS, &count);
    for (size_t i = 0; i < count; i++) {
        if (row_decode_id(overlay_key(rows[i])) >= meta.object_id_next)
            meta.object_id_next = row_decode_id(overlay_key(rows[i])) + 1;
    }
    free(rows);
    return meta;
}

/* ---- reads ---------------------------------------------------------------------------------------------------- */

enum kv_err disk_get_key(const struct disk *disk, struct kv_slice key, struct kv_slice *row)
{
    const struct overlay_row *found = overlay_get(disk->rows, OVERLAY_KEYS, key);
    if (found != NULL)
        *row = overlay_value(found);
    return found != NULL ? KV_OK : KV_NOT_FOUND;
}

enum kv_err disk_get_object(const struct disk *disk, const struct kv_hash *hash, struct kv_slice *row)
{
    const struct overlay_row *found = overlay_get(disk->rows, OVERLAY_OBJECTS, kv_hash_slice(hash));
    if (found != NULL)
        *row = overlay_value(found);
    return found != NULL ? KV_OK : KV_NOT_FOUND;
}

enum kv_err disk_get_blob(const struct disk *disk, uint64_t object_id, uint64_t offset, uint64_t bytes,
                          struct kv_buf *out)
{
    uint8_t space[8];
    const struct overlay_row *found = overlay_get(disk->rows, OVERLAY_BLOBS, row_encode_id(object_id, space));
    if (found == NULL || offset > overlay_value(found).bytes || bytes > overlay_value(found).bytes - offset)
        return KV_CORRUPT;
    kv_buf_append(out, kv_slice(overlay_value(found).data + offset, (size_t)bytes));
    return KV_OK;
}

enum kv_err disk_seek_key(const struct disk *disk, struct kv_slice from, bool behind, struct kv_buf *key,
                          struct kv_slice *row)
{
    overlay_order(disk->rows, SIZE_MAX);
    const struct overlay_row *found = overlay_seek(disk->rows, from);
    if (found != NULL && behind && kv_slice_equal(overlay_key(found), from))
        found = overlay_next(found);
    if (found == NULL)
        return KV_NOT_FOUND;
    key->bytes = 0;
    kv_buf_append(key, overlay_key(found));
    *row = overlay_value(found);
    return KV_OK;
}
