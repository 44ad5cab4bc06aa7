/* Goal: what was applied is there, whole or not at all, and what nothing refers to any more goes away.
 * Method: generations built by hand and by a deterministic script, applied to a store in a temporary directory; store_check
 * after each step; full maps, kill -9 in the middle, damage done on purpose, files of others. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../flushes.h"
#include "blobs.h"
#include "rows.h"
#include "store_internal.h"
#include "store_rig.h"

#define MAP_BYTES (256u << 20)

static const struct store_identity identity = {2, 4, "0123456789abcdef0123456789abcdef"};

struct place {
    char path[64];
    struct store *store;
    struct overlay *overlay; /* the generation under construction */
    struct store_meta meta;
    char why[256];
};

static void place_open(struct place *place, uint64_t map_bytes)
{
    cr_assert_eq(store_open(place->path, map_bytes, false, &identity, place->why, sizeof place->why, &place->store),
                 KV_OK, "%s", place->why);
}

static void place_init(struct place *place, uint64_t map_bytes)
{
    memset(place, 0, sizeof *place);
    snprintf(place->path, sizeof place->path, "/tmp/kv-store-XXXXXX");
    cr_assert_not_null(mkdtemp(place->path));
    place->overlay = overlay_new();
    place->meta.object_id_next = 1;
    place_open(place, map_bytes);
}

static void place_free(struct place *place)
{
    char command[128];
    store_close(&place->store);
    overlay_free(&place->overlay);
    snprintf(command, sizeof command, "rm -rf %s", place->path);
    cr_assert_eq(system(command), 0);
}

static struct kv_hash hash_of(uint64_t content)
{
    struct kv_hash hash;
    for (size_t i = 0; i < KV_HASH_BYTES; i++)
        hash.bytes[i] = (uint8_t)(content * 2654435761u >> (i % 4 * 8));
    memcpy(hash.bytes + 8, &content, sizeof content);
    return hash;
}

/* The stored form of an object id. */
static void fill(uint64_t id, uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)(id * 31 + i * 7 + i / 256);
}

static uint8_t scratch[1 << 20];

static void put_key(struct place *place, const char *key, uint64_t content, uint64_t txn_id)
{
    uint8_t space[ROW_KEY_BYTES_MAX];
    struct kv_row row = {.hash = hash_of(content), .txn_id = txn_id, .content_type = kv_slice_text("text/plain")};
    overlay_put(place->overlay, OVERLAY_KEYS, kv_slice_text(key), row_encode_key(&row, space), 0);
}

static void put_object_row(struct place *place, uint64_t content, uint64_t id, uint64_t stored_bytes)
{
    uint8_t space[ROW_OBJECT_BYTES_MAX];
    struct kv_hash hash = hash_of(content);
    struct kv_object object = {.size = stored_bytes, .stored_bytes = stored_bytes, .object_id = id, .refs = 1};
    overlay_put(place->overlay, OVERLAY_OBJECTS, kv_hash_slice(&hash), row_encode_object(&object, space), 0);
    if (id >= place->meta.object_id_next)
        place->meta.object_id_next = id + 1;
}

static void put_object(struct place *place, uint64_t content, uint64_t id, size_t stored_bytes)
{
    uint8_t space[8];
    put_object_row(place, content, id, stored_bytes);
    fill(id, scratch, stored_bytes);
    overlay_put(place->overlay, OVERLAY_BLOBS, row_encode_id(id, space), kv_slice(scratch, stored_bytes), 0);
}

/* A content that lies in its row. */
static void put_small(struct place *place, uint64_t content, size_t stored_bytes)
{
    uint8_t space[ROW_OBJECT_BYTES_MAX];
    struct kv_hash hash = hash_of(content);
    fill(content, scratch, stored_bytes);
    struct kv_object object = {
        .size = stored_bytes, .stored_bytes = stored_bytes, .refs = 1, .bytes = kv_slice(scratch, stored_bytes)};
    overlay_put(place->overlay, OVERLAY_OBJECTS, kv_hash_slice(&hash), row_encode_object(&object, space), 0);
}

static void delete_object(struct place *place, uint64_t content)
{
    struct kv_hash hash = hash_of(content);
    overlay_tombstone(place->overlay, OVERLAY_OBJECTS, kv_hash_slice(&hash), 0);
}

static enum kv_err apply_pinned(struct place *place, const uint64_t *pinned, size_t pinned_count, size_t sweep_rows_max)
{
    place->meta.position++;
    enum kv_err err = store_apply(place->store, place->overlay, &place->meta, pinned, pinned_count, sweep_rows_max);
    overlay_free(&place->overlay);
    place->overlay = overlay_new();
    return err;
}

static void apply(struct place *place, size_t sweep_rows_max)
{
    cr_assert_eq(apply_pinned(place, NULL, 0, sweep_rows_max), KV_OK);
}

static void expect_clean(struct place *place)
{
    cr_assert_eq(store_check(place->store, place->why, sizeof place->why), KV_OK, "%s", place->why);
}

static void expect_blob(struct place *place, uint64_t id, uint64_t offset, size_t bytes)
{
    struct kv_buf out = {0};
    kv_buf_append(&out, kv_slice_text("before"));
    cr_assert_eq(store_read_begin(place->store), KV_OK);
    cr_assert_eq(store_get_blob(place->store, id, offset, bytes, &out), KV_OK);
    store_read_end(place->store);
    fill(id, scratch, offset + bytes);
    cr_expect_eq(out.bytes, 6 + bytes);
    cr_expect(bytes == 0 || memcmp(out.data + 6, scratch + offset, bytes) == 0, "id %zu from %zu", (size_t)id,
              (size_t)offset);
    kv_buf_free(&out);
}

static void expect_small(struct place *place, uint64_t content, size_t stored_bytes)
{
    struct kv_hash hash = hash_of(content);
    struct kv_slice row;
    struct kv_object object;
    cr_assert_eq(store_read_begin(place->store), KV_OK);
    cr_assert_eq(store_get_object(place->store, &hash, &row), KV_OK);
    cr_assert_eq(row_decode_object(row, &object), KV_OK);
    fill(content, scratch, stored_bytes);
    cr_expect_eq(object.object_id, 0);
    cr_expect(kv_slice_equal(object.bytes, kv_slice(scratch, stored_bytes)), "content %zu", (size_t)content);
    store_read_end(place->store);
}

static uint64_t rows_of(struct place *place, enum store_table table)
{
    struct store_txn *txn = NULL;
    uint64_t rows = 0;
    cr_assert_eq(txn_begin_read(place->store->env, &txn), KV_OK);
    cr_assert_eq(txn_count(txn, table, &rows), KV_OK);
    txn_abort(&txn);
    return rows;
}

static bool has_blob(struct place *place, uint64_t id)
{
    struct kv_buf out = {0};
    cr_assert_eq(store_read_begin(place->store), KV_OK);
    enum kv_err err = store_get_blob(place->store, id, 0, 1, &out);
    store_read_end(place->store);
    kv_buf_free(&out);
    cr_assert(err == KV_OK || err == KV_CORRUPT);
    return err == KV_OK;
}

static struct store_usage usage_of(struct place *place)
{
    struct store_usage usage = {0};
    cr_assert_eq(store_read_begin(place->store), KV_OK);
    cr_assert_eq(store_usage(place->store, &usage), KV_OK);
    store_read_end(place->store);
    return usage;
}

/* ---- generations -------------------------------------------------------------------------------------------------- */

/* LMDB flushes its file, not the directory that names it. */
Test(store, the_name_of_a_new_file_is_on_the_disk)
{
    struct place place;
    place_init(&place, MAP_BYTES);
    cr_expect(was_flushed(place.path));
    place_free(&place);
}

Test(store, a_new_one_is_empty)
{
    struct place place;
    struct store_meta meta;
    struct kv_buf intents = {0};
    place_init(&place, MAP_BYTES);
    cr_assert_eq(store_read_begin(place.store), KV_OK);
    cr_assert_eq(store_get_meta(place.store, &meta, &intents), KV_OK);
    store_read_end(place.store);
    cr_expect_eq(meta.position, 0);
    cr_expect_eq(meta.object_id_next, 1);
    cr_expect_eq(meta.keys + meta.objects + meta.stored_bytes + meta.intents.bytes, 0);
    cr_expect_eq(store_sweep(place.store, NULL, 0, 10), KV_NOT_FOUND);
    expect_clean(&place);
    kv_buf_free(&intents);
    place_free(&place);
}

static const size_t sizes[] = {0, 1, 4079, 4080, 4081, 8160, 8161, 65535, 65536};

Test(store, all_of_a_generation_is_there_after_a_restart)
{
    struct place place;
    char key[16];
    struct kv_buf intents = {0};
    place_init(&place, MAP_BYTES);
    for (uint64_t i = 0; i < 9; i++) {
        snprintf(key, sizeof key, "key-%u", (unsigned)i);
        put_key(&place, key, i, i + 1);
        put_object(&place, i, i + 1, sizes[i]);
        place.meta.keys++;
        place.meta.objects++;
        place.meta.stored_bytes += sizes[i];
    }
    place.meta.intents = kv_slice_text("opaque");
    apply(&place, 100);
    store_close(&place.store);
    place_open(&place, MAP_BYTES);
    expect_clean(&place);
    for (uint64_t i = 0; i < 9; i++) {
        expect_blob(&place, i + 1, 0, sizes[i]);
        if (sizes[i] > 4081)
            expect_blob(&place, i + 1, 4000, 81);
        expect_blob(&place, i + 1, sizes[i], 0);
    }
    struct kv_slice value;
    struct kv_row row;
    struct kv_object object;
    struct kv_hash hash = hash_of(4), absent = hash_of(99);
    struct store_meta meta;
    cr_assert_eq(store_read_begin(place.store), KV_OK);
    cr_assert_eq(store_get_key(place.store, kv_slice_text("key-4"), &value), KV_OK);
    cr_assert_eq(row_decode_key(value, &row), KV_OK);
    cr_expect(kv_hash_equal(&row.hash, &hash));
    cr_assert_eq(store_get_object(place.store, &hash, &value), KV_OK);
    cr_assert_eq(row_decode_object(value, &object), KV_OK);
    cr_expect_eq(object.object_id, 5);
    cr_expect_eq(store_get_object(place.store, &absent, &value), KV_NOT_FOUND);
    cr_assert_eq(store_get_meta(place.store, &meta, &intents), KV_OK);
    cr_expect_eq(meta.position, 1);
    cr_expect_eq(meta.object_id_next, 10);
    cr_expect(kv_slice_equal(meta.intents, kv_slice_text("opaque")));
    store_read_end(place.store);
    kv_buf_free(&intents);
    place_free(&place);
}

Test(store, opened_anew_it_goes_on)
{
    struct place place;
    struct kv_slice value;
    place_init(&place, MAP_BYTES);
    for (uint64_t round = 1; round <= 3; round++) {
        char key[16];
        snprintf(key, sizeof key, "key-%u", (unsigned)round);
        put_key(&place, key, round, round);
        put_object(&place, round, round, 65536);
        place.meta.keys++;
        place.meta.objects++;
        place.meta.stored_bytes += 65536;
        apply(&place, 100);
        cr_assert_eq(store_renew(place.store, place.why, sizeof place.why), KV_OK, "%s", place.why);
        expect_clean(&place);
        for (uint64_t id = 1; id <= round; id++)
            expect_blob(&place, id, 0, 65536);
        cr_assert_eq(store_read_begin(place.store), KV_OK);
        cr_expect_eq(store_get_key(place.store, kv_slice_text(key), &value), KV_OK);
        store_read_end(place.store);
    }
    place_free(&place);
}

Test(store, what_cannot_be_opened_anew_says_so)
{
    struct place place;
    char path[128];
    place_init(&place, MAP_BYTES);
    snprintf(path, sizeof path, "%s/data.mdb", place.path);
    cr_assert_eq(truncate(path, 100), 0);
    cr_expect_neq(store_renew(place.store, place.why, sizeof place.why), KV_OK);
    cr_expect_not_null(strstr(place.why, "data.mdb"), "%s", place.why);
    place_free(&place);
}

Test(store, missing_rows_are_corruption_not_short_answers)
{
    struct place place;
    struct kv_buf out = {0};
    place_init(&place, MAP_BYTES);
    put_object(&place, 1, 1, 5000);
    put_object(&place, 2, 2, 5000);
    place.meta.objects = 2;
    place.meta.stored_bytes = 10000;
    apply(&place, 0);
    cr_assert_eq(store_read_begin(place.store), KV_OK);
    kv_buf_append(&out, kv_slice_text("x"));
    cr_expect_eq(store_get_blob(place.store, 1, 0, 5001, &out), KV_CORRUPT);
    cr_expect_eq(store_get_blob(place.store, 1, 8160, 1, &out), KV_CORRUPT, "not the next object's");
    cr_expect_eq(store_get_blob(place.store, 3, 0, 1, &out), KV_CORRUPT);
    cr_expect_eq(out.bytes, 1, "unchanged on error");
    store_read_end(place.store);
    kv_buf_free(&out);
    place_free(&place);
}

Test(store, a_snapshot_does_not_move)
{
    struct place place;
    struct kv_slice value;
    place_init(&place, MAP_BYTES);
    put_key(&place, "old", 1, 1);
    put_object(&place, 1, 1, 10);
    place.meta.keys = place.meta.objects = 1;
    place.meta.stored_bytes = 10;
    apply(&place, 0);
    cr_assert_eq(store_read_begin(place.store), KV_OK);
    cr_assert_eq(store_get_key(place.store, kv_slice_text("old"), &value), KV_OK);
    overlay_tombstone(place.overlay, OVERLAY_KEYS, kv_slice_text("old"), 0);
    put_key(&place, "new", 1, 2);
    apply(&place, 0);
    cr_expect_eq(store_get_key(place.store, kv_slice_text("old"), &value), KV_OK);
    cr_expect_eq(store_get_key(place.store, kv_slice_text("new"), &value), KV_NOT_FOUND);
    struct store_usage usage;
    cr_assert_eq(store_usage(place.store, &usage), KV_OK);
    cr_expect_eq(usage.readers_oldest, 1);
    store_read_end(place.store);
    cr_assert_eq(store_read_begin(place.store), KV_OK);
    cr_expect_eq(store_get_key(place.store, kv_slice_text("old"), &value), KV_NOT_FOUND);
    cr_expect_eq(store_get_key(place.store, kv_slice_text("new"), &value), KV_OK);
    store_read_end(place.store);
    expect_clean(&place);
    place_free(&place);
}

/* ---- the sweep ---------------------------------------------------------------------------------------------------- */

Test(store, a_replaced_object_is_swept_unless_pinned)
{
    struct place place;
    static const uint64_t pinned[] = {1, 7};
    place_init(&place, MAP_BYTES);
    put_object(&place, 1, 1, 20000);
    place.meta.objects = 1;
    place.meta.stored_bytes = 20000;
    apply(&place, 100);
    put_object(&place, 1, 2, 9000); /* deleted and stored anew within one generation */
    place.meta.stored_bytes = 9000;
    cr_assert_eq(apply_pinned(&place, pinned, 2, 100), KV_OK);
    expect_clean(&place);
    cr_expect_eq(usage_of(&place).sweep_objects, 1);
    expect_blob(&place, 1, 0, 20000);
    cr_expect_eq(store_sweep(place.store, pinned, 2, 100), KV_NOT_FOUND, "only pinned ones left");
    cr_expect_eq(store_sweep(place.store, NULL, 0, 100), KV_OK);
    cr_expect_not(has_blob(&place, 1));
    expect_blob(&place, 2, 0, 9000);
    cr_expect_eq(usage_of(&place).sweep_objects, 0);
    expect_clean(&place);
    place_free(&place);
}

Test(store, the_same_id_again_is_not_swept)
{
    struct place place;
    place_init(&place, MAP_BYTES);
    put_object(&place, 1, 1, 5000);
    place.meta.objects = 1;
    place.meta.stored_bytes = 5000;
    apply(&place, 100);
    put_object_row(&place, 1, 1, 5000); /* another count of references */
    apply(&place, 100);
    expect_blob(&place, 1, 0, 5000);
    expect_clean(&place);
    place_free(&place);
}

Test(store, deleted_objects_go_in_bounded_steps)
{
    struct place place;
    place_init(&place, MAP_BYTES);
    for (uint64_t i = 1; i <= 3; i++)
        put_object(&place, i, i, 60000); /* 15 rows each */
    put_object(&place, 4, 4, 0);
    place.meta.objects = 4;
    place.meta.stored_bytes = 180000;
    apply(&place, 0);
    for (uint64_t i = 1; i <= 4; i++)
        delete_object(&place, i);
    place.meta.objects = place.meta.stored_bytes = 0;
    apply(&place, 10);
    cr_expect_eq(usage_of(&place).sweep_objects, 3, "of which the first has lost ten rows; the empty one needs none");
    unsigned steps = 0;
    while (store_sweep(place.store, NULL, 0, 10) == KV_OK) {
        expect_clean(&place);
        cr_assert_lt(++steps, 10);
    }
    cr_expect_geq(steps, 4);
    for (uint64_t i = 1; i <= 3; i++)
        cr_expect_not(has_blob(&place, i));
    place_free(&place);
}

Test(store, a_small_content_is_one_row)
{
    struct place place;
    place_init(&place, MAP_BYTES);
    put_small(&place, 1, ROW_CONTENT_BYTES_MAX);
    put_small(&place, 2, 0);
    place.meta.objects = 2;
    place.meta.stored_bytes = ROW_CONTENT_BYTES_MAX;
    apply(&place, 0);
    expect_clean(&place);
    expect_small(&place, 1, ROW_CONTENT_BYTES_MAX);
    expect_small(&place, 2, 0);
    delete_object(&place, 1);
    place.meta.objects = 1;
    place.meta.stored_bytes = 0;
    apply(&place, 0);
    expect_clean(&place);
    cr_expect_eq(rows_of(&place, STORE_OBJECTS), 1);
    cr_expect_eq(rows_of(&place, STORE_BLOBS) + rows_of(&place, STORE_SWEEP) + rows_of(&place, STORE_STAGED), 0);
    place_free(&place);
}

/* Deleted and stored anew within one generation: in another form, since the level of compression is another one. */
Test(store, a_content_may_move_into_its_row_and_out_of_it)
{
    struct place place;
    place_init(&place, MAP_BYTES);
    put_object(&place, 1, 1, 100); /* as format 1 has it */
    put_small(&place, 2, 100);
    place.meta.objects = 2;
    place.meta.stored_bytes = 200;
    apply(&place, 0);
    expect_clean(&place);
    put_small(&place, 1, 100);
    put_object(&place, 2, 2, 5000);
    place.meta.stored_bytes = 5100;
    apply(&place, 0);
    expect_clean(&place);
    cr_expect_eq(usage_of(&place).sweep_objects, 1, "the id that nothing has any more");
    expect_small(&place, 1, 100);
    expect_blob(&place, 2, 0, 5000);
    cr_expect_eq(store_sweep(place.store, NULL, 0, 10), KV_OK);
    cr_expect_not(has_blob(&place, 1));
    expect_clean(&place);
    place_free(&place);
}

/* ---- staging ------------------------------------------------------------------------------------------------------ */

static void stage(struct place *place, uint64_t id, size_t bytes, size_t piece_bytes)
{
    fill(id, scratch, bytes);
    for (size_t at = 0; at < bytes; at += piece_bytes) {
        size_t share = bytes - at < piece_bytes ? bytes - at : piece_bytes;
        struct store_piece piece = {.object_id = id, .offset = at, .bytes = kv_slice(scratch + at, share)};
        cr_assert_eq(store_stage(place->store, &piece, 1), KV_OK);
    }
    if (id >= place->meta.object_id_next)
        place->meta.object_id_next = id + 1;
}

static size_t count_staged(struct place *place, uint64_t *first)
{
    struct kv_buf ids = {0};
    cr_assert_eq(store_read_begin(place->store), KV_OK);
    cr_assert_eq(store_get_staged(place->store, &ids), KV_OK);
    store_read_end(place->store);
    if (ids.bytes > 0)
        memcpy(first, ids.data, 8);
    size_t count = ids.bytes / 8;
    kv_buf_free(&ids);
    return count;
}

Test(store, staged_content_is_adopted_or_given_up)
{
    struct place place;
    uint64_t id = 0;
    static const uint64_t both[] = {5, 6};
    place_init(&place, MAP_BYTES);
    stage(&place, 6, 300000, KV_BLOB_ROW_BYTES * 20);
    stage(&place, 5, 200000, KV_BLOB_ROW_BYTES * 7); /* ids need not come in order */
    stage(&place, 5, 200000, KV_BLOB_ROW_BYTES * 9); /* sent again */
    cr_expect_eq(count_staged(&place, &id), 2);
    cr_expect_eq(id, 5);
    expect_clean(&place);
    put_object_row(&place, 55, 5, 200000);
    put_object(&place, 56, 4, 100); /* an id from before, inline */
    place.meta.objects = 2;
    place.meta.stored_bytes = 200100;
    apply(&place, 100);
    cr_expect_eq(count_staged(&place, &id), 1);
    cr_expect_eq(id, 6);
    expect_blob(&place, 5, 0, 200000);
    expect_blob(&place, 5, 100000, 12345);
    expect_blob(&place, 4, 0, 100);
    expect_clean(&place);
    cr_assert_eq(store_unstage(place.store, both, 2), KV_OK);
    cr_expect_eq(count_staged(&place, &id), 0);
    expect_clean(&place);
    while (store_sweep(place.store, NULL, 0, 50) == KV_OK)
        expect_clean(&place);
    cr_expect_not(has_blob(&place, 6));
    expect_blob(&place, 5, 0, 200000); /* adopted: unstage must not touch it */
    place_free(&place);
}

/* An index in memory, the rest in a file that begins with something else. */
Test(store, staged_content_comes_from_a_file)
{
    enum { BYTES = 900000, INDEX = 100, BEFORE = 77 };
    struct place place;
    uint64_t id;
    place_init(&place, MAP_BYTES);
    int fd = memfd_create("content", MFD_CLOEXEC);
    fill(5, scratch, BYTES);
    cr_assert_eq(pwrite(fd, scratch + INDEX, BYTES - INDEX, BEFORE), BYTES - INDEX);
    struct store_piece piece = {
        .object_id = 5, .bytes = kv_slice(scratch, INDEX), .file = {fd, BEFORE, KV_BLOB_ROW_BYTES * 100 - INDEX}};
    cr_assert_eq(store_stage(place.store, &piece, 1), KV_OK);
    piece.offset = KV_BLOB_ROW_BYTES * 100;
    piece.bytes.bytes = 0;
    piece.file.offset += piece.file.bytes;
    piece.file.bytes = BYTES - piece.offset + 1;
    cr_assert_eq(store_stage(place.store, &piece, 1), KV_INVALID, "the file is shorter");
    piece.file.bytes--;
    cr_assert_eq(store_stage(place.store, &piece, 1), KV_OK);
    close(fd);
    cr_expect_eq(count_staged(&place, &id), 1);
    place.meta.object_id_next = 6;
    put_object_row(&place, 55, 5, BYTES);
    place.meta.objects = 1;
    place.meta.stored_bytes = BYTES;
    apply(&place, 100);
    expect_blob(&place, 5, 0, BYTES);
    expect_clean(&place);
    place_free(&place);
}

/* The map is trimmed by what large contents read of it. */
Test(store, only_large_contents_count_towards_a_trim)
{
    struct place place;
    place_init(&place, MAP_BYTES);
    put_object(&place, 1, 1, KV_INLINE_BYTES_MAX);
    apply(&place, 0);
    stage(&place, 2, 100000, 102000);
    expect_blob(&place, 1, 0, KV_INLINE_BYTES_MAX);
    cr_expect_eq(place.store->blob_bytes_read, 0u);
    expect_blob(&place, 2, 0, 100000);
    cr_expect_eq(place.store->blob_bytes_read, 100000u);
    place_free(&place);
}

Test(store, staged_ids_survive_a_restart)
{
    struct place place;
    uint64_t id = 0;
    place_init(&place, MAP_BYTES);
    stage(&place, 9, 100000, KV_BLOB_ROW_BYTES * 5);
    store_close(&place.store);
    place_open(&place, MAP_BYTES);
    cr_expect_eq(count_staged(&place, &id), 1);
    cr_expect_eq(id, 9);
    expect_blob(&place, 9, 0, 100000);
    place_free(&place);
}

/* ---- a script: generation i puts object i into slot i % SLOTS ------------------------------------------------------- */

#define SLOTS 50u

static size_t script_bytes(uint64_t i)
{
    return i * 977 % 30000;
}

static enum kv_err script_step(struct place *place, size_t sweep_rows_max)
{
    char key[16];
    uint64_t i = place->meta.position + 1, slot = i % SLOTS;
    snprintf(key, sizeof key, "slot-%u", (unsigned)slot);
    put_key(place, key, i, i);
    put_object(place, i, i, script_bytes(i));
    place->meta.stored_bytes += script_bytes(i);
    if (i > SLOTS) {
        delete_object(place, i - SLOTS);
        place->meta.stored_bytes -= script_bytes(i - SLOTS);
    } else {
        place->meta.keys++;
        place->meta.objects++;
    }
    return apply_pinned(place, NULL, 0, sweep_rows_max);
}

static void expect_script(struct place *place)
{
    uint64_t position = place->meta.position;
    expect_clean(place);
    for (uint64_t i = position > SLOTS ? position - SLOTS + 1 : 1; i <= position; i++)
        expect_blob(place, i, 0, script_bytes(i));
    cr_expect_eq(place->meta.keys, position < SLOTS ? position : SLOTS);
}

static void read_meta(struct place *place)
{
    struct kv_buf intents = {0};
    cr_assert_eq(store_read_begin(place->store), KV_OK);
    cr_assert_eq(store_get_meta(place->store, &place->meta, &intents), KV_OK);
    store_read_end(place->store);
    kv_buf_free(&intents);
    place->meta.intents = kv_slice(NULL, 0);
}

Test(store, churn_reuses_space)
{
    struct place place;
    place_init(&place, MAP_BYTES);
    uint64_t used = 0;
    for (unsigned i = 1; i <= 400; i++) {
        cr_assert_eq(script_step(&place, 50), KV_OK);
        if (i % 100 == 0)
            expect_script(&place);
        if (i == 100)
            used = usage_of(&place).used_bytes;
    }
    struct store_usage usage = usage_of(&place);
    cr_expect_lt(usage.used_bytes, used + used / 4);
    cr_expect_gt(usage.used_bytes, place.meta.stored_bytes);
    cr_expect_eq(usage.map_bytes, MAP_BYTES);
    for (uint64_t i = 351; i <= 400; i++)
        delete_object(&place, i);
    place.meta.objects = place.meta.stored_bytes = 0;
    apply(&place, 10000);
    while (store_sweep(place.store, NULL, 0, 1000) == KV_OK)
        ;
    cr_expect_lt(usage_of(&place).used_bytes, 40 * 4096, "nothing is left but keys");
    place_free(&place);
}

static _Noreturn void apply_until_killed(struct place *place, int acknowledged)
{
    place_open(place, MAP_BYTES);
    read_meta(place);
    while (script_step(place, 20) == KV_OK) {
        uint8_t one = 1;
        if (write(acknowledged, &one, 1) != 1)
            break;
    }
    _exit(1);
}

/* Kills a child that applies, at a moment that depends on `round`; returns how many generations it had acknowledged. */
static uint64_t killed_run(struct place *place, unsigned round)
{
    int pipes[2];
    uint64_t count = 0;
    uint8_t bytes[64];
    cr_assert_eq(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0)
        apply_until_killed(place, pipes[1]);
    close(pipes[1]);
    while (count < 10 + round * 7)
        count += (uint64_t)read(pipes[0], bytes, 1);
    usleep(round * 137 % 900);
    kill(child, SIGKILL);
    for (ssize_t got; (got = read(pipes[0], bytes, sizeof bytes)) > 0;)
        count += (uint64_t)got;
    close(pipes[0]);
    waitpid(child, NULL, 0);
    return count;
}

Test(store, kill_9_in_the_middle_of_an_apply)
{
    struct place place;
    place_init(&place, MAP_BYTES);
    store_close(&place.store);
    uint64_t position = 0;
    for (unsigned round = 0; round < 10; round++) {
        uint64_t acknowledged = position + killed_run(&place, round);
        place_open(&place, MAP_BYTES);
        read_meta(&place);
        position = place.meta.position;
        cr_assert_geq(position, acknowledged, "round %u: an acknowledged generation is lost", round);
        cr_assert_leq(position, acknowledged + 1, "round %u", round);
        expect_script(&place);
        store_close(&place.store);
    }
    place_free(&place);
}

/* The loop thread reads while the applier writes: each snapshot is one generation, whole. */
struct pair {
    struct place place;
    atomic_bool stop;
};

static void *apply_in_background(void *arg)
{
    struct pair *pair = arg;
    for (unsigned i = 0; i < 150; i++)
        cr_assert_eq(script_step(&pair->place, 50), KV_OK);
    atomic_store(&pair->stop, true);
    return NULL;
}

Test(store, readers_see_whole_generations)
{
    struct pair pair = {0};
    pthread_t thread;
    place_init(&pair.place, MAP_BYTES);
    struct store *store = pair.place.store;
    struct kv_buf intents = {0};
    cr_assert_eq(pthread_create(&thread, NULL, apply_in_background, &pair), 0);
    while (!atomic_load(&pair.stop)) {
        struct store_meta meta;
        struct kv_hash hash;
        struct kv_slice value;
        cr_assert_eq(store_read_begin(store), KV_OK);
        cr_assert_eq(store_get_meta(store, &meta, &intents), KV_OK);
        hash = hash_of(meta.position);
        if (meta.position > 0)
            cr_assert_eq(store_get_object(store, &hash, &value), KV_OK);
        hash = hash_of(meta.position + 1);
        cr_assert_eq(store_get_object(store, &hash, &value), KV_NOT_FOUND);
        store_read_end(store);
    }
    pthread_join(thread, NULL);
    expect_script(&pair.place);
    kv_buf_free(&intents);
    place_free(&pair.place);
}

/* ---- full --------------------------------------------------------------------------------------------------------- */

Test(store, a_full_map_refuses_and_recovers)
{
    struct place place;
    place_init(&place, 4u << 20);
    enum kv_err err = KV_OK;
    uint64_t id = 0;
    struct store_meta before = {0};
    while (err == KV_OK && id < 1000) {
        before = place.meta;
        put_object(&place, id + 1, id + 1, 60000);
        place.meta.objects++;
        place.meta.stored_bytes += 60000;
        err = apply_pinned(&place, NULL, 0, 100);
        id += err == KV_OK;
    }
    cr_assert_eq(err, KV_NO_SPACE);
    cr_assert_gt(id, 30);
    place.meta = before;
    expect_clean(&place); /* rolled back, reads fine */
    expect_blob(&place, id, 0, 60000);
    struct store_usage usage = usage_of(&place);
    cr_expect_gt(usage.used_bytes, usage.map_bytes / 10 * 8);
    cr_expect_leq(usage.used_bytes, usage.map_bytes);
    struct store_piece piece = {.object_id = id + 9, .bytes = kv_slice(scratch, KV_BLOB_ROW_BYTES * 50)};
    cr_expect_eq(store_stage(place.store, &piece, 1), KV_NO_SPACE);
    for (uint64_t i = 1; i <= 10; i++)
        delete_object(&place, i);
    place.meta.objects -= 10;
    place.meta.stored_bytes -= 600000;
    apply(&place, 1000); /* deletes go through, even if there is no room to sweep at once */
    expect_clean(&place);
    while ((err = store_sweep(place.store, NULL, 0, 1000)) == KV_OK)
        expect_clean(&place);
    cr_assert_eq(err, KV_NOT_FOUND);
    apply(&place, 0); /* pages set free become usable two transactions later */
    for (uint64_t i = 1; i <= 5; i++)
        put_object(&place, 2000 + i, 2000 + i, 60000);
    place.meta.objects += 5;
    place.meta.stored_bytes += 300000;
    apply(&place, 100);
    expect_clean(&place);
    expect_blob(&place, 2005, 0, 60000);
    place_free(&place);
}

/* ---- damage ------------------------------------------------------------------------------------------------------- */

static void prepare(struct place *place)
{
    static char long_key[1200];
    memset(long_key, 'l', sizeof long_key - 1);
    place_init(place, MAP_BYTES);
    put_key(place, "a", 1, 1);
    put_key(place, long_key, 2, 1);
    put_object(place, 1, 1, 9000);
    put_object(place, 2, 2, 100);
    put_object(place, 3, 3, 5000);
    stage(place, 4, 9000, KV_BLOB_ROW_BYTES);
    place->meta.keys = 2;
    place->meta.objects = 3;
    place->meta.stored_bytes = 14100;
    apply(place, 0);
    delete_object(place, 3);
    place->meta.objects = 2;
    place->meta.stored_bytes = 9100;
    apply(place, 0);
    expect_clean(place);
}

static struct kv_slice row_key(enum store_table table, uint64_t id, uint8_t number, uint8_t space[32])
{
    struct kv_hash hash = hash_of(id);
    if (table == STORE_OBJECTS)
        return memcpy(space, hash.bytes, 32), kv_slice(space, 32);
    row_encode_id(id, space);
    memset(space + 8, 0, 4);
    space[11] = number;
    return kv_slice(space, table == STORE_BLOBS ? 12 : 8);
}

/* Deletes (value NULL) or sets one row behind the store's back; store_check must say `word`. */
static void damage(enum store_table table, struct kv_slice key, const struct kv_slice *value, const char *word)
{
    struct place place;
    struct store_txn *txn = NULL;
    prepare(&place);
    cr_assert_eq(txn_begin_write(place.store->env, &txn), KV_OK);
    cr_assert_eq(value ? txn_put(txn, table, key, *value) : txn_delete(txn, table, key), KV_OK);
    cr_assert_eq(txn_commit(&txn), KV_OK);
    cr_expect_eq(store_check(place.store, place.why, sizeof place.why), KV_CORRUPT, "not found: %s", word);
    cr_expect_not_null(strstr(place.why, word), "'%s' misses '%s'", place.why, word);
    place_free(&place);
}

Test(store, check_finds_damaged_blobs)
{
    uint8_t space[32];
    struct kv_slice some = kv_slice_text("some bytes"), none = kv_slice(NULL, 0);
    damage(STORE_BLOBS, row_key(STORE_BLOBS, 1, 1, space), NULL, "object id 1 has 4920 bytes in 2 rows, not 9000");
    damage(STORE_BLOBS, row_key(STORE_BLOBS, 1, 2, space), NULL, "object id 1 has");
    damage(STORE_BLOBS, row_key(STORE_BLOBS, 1, 1, space), &some, "object id 1 has");
    damage(STORE_BLOBS, row_key(STORE_BLOBS, 2, 0, space), NULL, "object id 2 has no rows");
    damage(STORE_BLOBS, row_key(STORE_BLOBS, 2, 1, space), &some, "object id 2 has");
    damage(STORE_BLOBS, row_key(STORE_BLOBS, 8, 0, space), &some, "object id 8 has 1 rows and no owner");
    damage(STORE_BLOBS, row_key(STORE_BLOBS, 1, 0, space), &none, "malformed");
    damage(STORE_BLOBS, kv_slice_text("short"), &some, "malformed");
    damage(STORE_SWEEP, row_key(STORE_SWEEP, 3, 0, space), NULL, "object id 3 has 2 rows and no owner");
    damage(STORE_STAGED, row_key(STORE_STAGED, 4, 0, space), NULL, "object id 4 has 3 rows and no owner");
    struct kv_slice amount = kv_slice_text("12345678");
    damage(STORE_SWEEP, row_key(STORE_SWEEP, 1, 0, space), &amount, "in use and in sweep");
    damage(STORE_STAGED, row_key(STORE_STAGED, 3, 0, space), &amount, "in sweep and in staged");
}

Test(store, check_finds_damaged_rows)
{
    uint8_t space[32], object_space[ROW_OBJECT_BYTES_MAX], meta[48] = {0};
    struct kv_slice some = kv_slice_text("some bytes");
    struct kv_object twin = {.size = 9000, .stored_bytes = 9000, .object_id = 1, .refs = 1};
    struct kv_slice twin_row = row_encode_object(&twin, object_space);
    damage(STORE_OBJECTS, row_key(STORE_OBJECTS, 1, 0, space), &some, "objects: row");
    damage(STORE_OBJECTS, row_key(STORE_OBJECTS, 1, 0, space), NULL, "no owner");
    struct kv_object small = {.size = 9000, .stored_bytes = 4, .refs = 1, .bytes = kv_slice_text("four")};
    struct kv_slice small_row = row_encode_object(&small, object_space);
    damage(STORE_OBJECTS, row_key(STORE_OBJECTS, 1, 0, space), &small_row, "object id 1 has 3 rows and no owner");
    damage(STORE_OBJECTS, row_key(STORE_OBJECTS, 7, 0, space), &small_row, "meta: 2 objects, 3 found");
    row_encode_object(&twin, object_space);
    damage(STORE_OBJECTS, row_key(STORE_OBJECTS, 7, 0, space), &twin_row, "two rows have the object id 1");
    damage(STORE_KEYS, kv_slice_text("a"), &some, "keys: row 1 does not decode");
    damage(STORE_KEYS, kv_slice_text("a"), NULL, "meta: 2 keys, 1 found");
    struct kv_slice meta_row = kv_slice(meta, sizeof meta);
    damage(STORE_META, kv_slice_text("meta"), &meta_row, "meta: 0 keys, 2 found");
    damage(STORE_META, kv_slice_text("meta"), &some, "meta: a row is missing or damaged");
    damage(STORE_META, kv_slice_text("intents"), NULL, "meta: a row is missing or damaged");
}

Test(store, check_finds_lost_tails)
{
    uint8_t tail[511];
    struct kv_slice stray;
    uint8_t key_space[ROW_KEY_BYTES_MAX];
    struct kv_row row = {.txn_id = 9};
    struct kv_slice good_row = row_encode_key(&row, key_space);
    memset(tail, 'l', sizeof tail);
    row_encode_id(1, tail); /* the first node: 8 bytes of id, 502 of key, then "continues" */
    tail[510] = 1;
    damage(STORE_TAILS, kv_slice(tail, sizeof tail), NULL, "leads nowhere");
    row_encode_id(77, tail);
    stray = kv_slice(tail, 100);
    damage(STORE_TAILS, stray, &good_row, "1 records belong to no key");
}

/* ---- whose files ---------------------------------------------------------------------------------------------------- */

static void refused(struct place *place, struct store_identity other, enum kv_err expected, const char *word)
{
    static uint8_t before[8 << 20], after[8 << 20];
    char path[96];
    struct store *store = NULL;
    snprintf(path, sizeof path, "%s/data.mdb", place->path);
    int fd = open(path, O_RDONLY);
    ssize_t before_bytes = pread(fd, before, sizeof before, 0);
    place->why[0] = '\0';
    cr_expect_eq(store_open(place->path, MAP_BYTES, false, &other, place->why, sizeof place->why, &store), expected);
    cr_expect_not_null(strstr(place->why, word), "'%s' misses '%s'", place->why, word);
    cr_expect_null(store);
    cr_expect_eq(pread(fd, after, sizeof after, 0), before_bytes);
    cr_expect(memcmp(before, after, (size_t)before_bytes) == 0, "files untouched");
    close(fd);
}

static void set_identity_version(struct place *place, uint8_t version)
{
    struct store_txn *txn = NULL;
    struct kv_slice value;
    uint8_t copy[56];
    cr_assert_eq(txn_begin_write(place->store->env, &txn), KV_OK);
    cr_assert_eq(txn_get(txn, STORE_META, kv_slice_text("identity"), &value), KV_OK);
    cr_assert_eq(value.bytes, sizeof copy);
    memcpy(copy, value.data, sizeof copy);
    copy[0] = version;
    cr_assert_eq(txn_put(txn, STORE_META, kv_slice_text("identity"), kv_slice(copy, sizeof copy)), KV_OK);
    cr_assert_eq(txn_commit(&txn), KV_OK);
}

Test(store, files_of_format_1_are_taken_and_raised_by_the_first_generation)
{
    struct place place;
    place_init(&place, MAP_BYTES);
    cr_expect_eq(rig_format_on_disk(place.store), STORE_FORMAT_VERSION);
    put_object(&place, 1, 1, 100);
    place.meta.objects = 1;
    place.meta.stored_bytes = 100;
    apply(&place, 0);
    set_identity_version(&place, 1);
    cr_assert_eq(store_renew(place.store, place.why, sizeof place.why), KV_OK, "%s", place.why);
    expect_blob(&place, 1, 0, 100);
    expect_clean(&place);
    cr_expect_eq(rig_format_on_disk(place.store), 1, "an older build may still take it back");
    put_small(&place, 2, 100);
    place.meta.objects = 2;
    place.meta.stored_bytes = 200;
    apply(&place, 0);
    cr_expect_eq(rig_format_on_disk(place.store), STORE_FORMAT_VERSION);
    cr_assert_eq(store_renew(place.store, place.why, sizeof place.why), KV_OK, "%s", place.why);
    expect_blob(&place, 1, 0, 100);
    expect_small(&place, 2, 100);
    expect_clean(&place);
    place_free(&place);
}

Test(store, files_of_others_are_refused)
{
    struct place place;
    prepare(&place);
    set_identity_version(&place, STORE_FORMAT_VERSION);
    store_close(&place.store);
    struct store_identity other = identity;
    other.shard_count = 3;
    refused(&place, other, KV_INVALID, "number of shards of 4, not 3");
    other = identity;
    other.shard_index = 1;
    refused(&place, other, KV_INVALID, "by shard 2, not 1");
    other = identity;
    other.store_id = "ffffffffffffffffffffffffffffffff";
    refused(&place, other, KV_INVALID, "0123456789abcdef0123456789abcdef");
    place_open(&place, MAP_BYTES);
    set_identity_version(&place, 99);
    store_close(&place.store);
    refused(&place, identity, KV_INVALID, "format version 99, not 2");
    place_free(&place);
    prepare(&place);
    set_identity_version(&place, 0);
    store_close(&place.store);
    refused(&place, identity, KV_INVALID, "format version 0, not 2");
    place_free(&place);
}

Test(store, a_file_that_is_no_store_is_refused)
{
    struct place place;
    char path[96];
    static const uint8_t garbage[20000] = {1, 2, 3};
    place_init(&place, MAP_BYTES);
    store_close(&place.store);
    snprintf(path, sizeof path, "%s/data.mdb", place.path);
    int fd = open(path, O_WRONLY | O_TRUNC);
    cr_assert_eq(write(fd, garbage, sizeof garbage), (ssize_t)sizeof garbage);
    close(fd);
    refused(&place, identity, KV_CORRUPT, "data.mdb");
    place_free(&place);
}

Test(store, a_directory_that_is_not_there)
{
    struct store *store = NULL;
    char why[256];
    cr_expect_eq(store_open("/nonexistent/kv", MAP_BYTES, false, &identity, why, sizeof why, &store), KV_IO);
    cr_expect_not_null(strstr(why, "data.mdb"), "%s", why);
    cr_expect_null(store);
}
