/* Goal: a generation that goes into LMDB in pieces is there as if it had come in one, whatever ends the process or refuses a
 * transaction in the midst of it; and no transaction of it is large.
 * Method: two generations with every kind of change, the second one applied with bounds of a few rows in a process that ends at its n-th
 * flush, for many n, once more at a flush of the one that finishes it; then all tables are compared with those of a store that
 * took it in one. Flushes and writes are counted in place of libc's. Then full maps, a damaged `redo`, and who owns which blobs. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rows.h"
#include "store_internal.h"
#include "store_meta.h"
#include "store_redo.h"
#include "store_rig.h"

#define MAP_BYTES (256u << 20)
#define BOUND_BYTES (8u * 4096) /* pieces of 3 rows */
#define CONTENTS 120u
#define LARGE_BYTES 70000u
#define KILLED 77

static const struct store_identity identity = {2, 4, "0123456789abcdef0123456789abcdef"};

/* ---- the end of a process, and what it wrote ---------------------------------------------------------------------- */

static unsigned flushes, flushes_left; /* 0: any number */
static size_t written, written_max;    /* by LMDB: since the last flush, and the most between two */

static void count_flush(void)
{
    flushes++;
    written_max = written > written_max ? written : written_max;
    written = 0;
    if (flushes_left > 0 && --flushes_left == 0)
        _exit(KILLED);
}

/* A process that ends loses nothing of what the kernel has, so nothing waits for the disk. */
int fdatasync(int fd)
{
    (void)fd;
    count_flush();
    return 0;
}

int fsync(int fd)
{
    return fdatasync(fd);
}

static ssize_t count_written(ssize_t bytes)
{
    written += bytes > 0 ? (size_t)bytes : 0;
    return bytes;
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off_t offset)
{
    return count_written(syscall(SYS_pwrite64, fd, data, bytes, offset));
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
    return pwrite64(fd, data, bytes, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    return count_written(syscall(SYS_writev, fd, parts, count));
}

/* ---- stores ------------------------------------------------------------------------------------------------------- */

struct place {
    char path[64];
    struct store *store;
    char why[256];
};

static void shell(const char *format, const char *a, const char *b)
{
    char command[256];
    snprintf(command, sizeof command, format, a, b);
    cr_assert_eq(system(command), 0, "%s", command);
}

static void place_open_as(struct place *place, uint64_t map_bytes, bool read_only)
{
    cr_assert_eq(store_open(place->path, map_bytes, read_only, &identity, place->why, sizeof place->why, &place->store),
                 KV_OK, "%s", place->why);
    store_bound(place->store, BOUND_BYTES);
}

static void place_init(struct place *place)
{
    snprintf(place->path, sizeof place->path, "/tmp/kv-redo-XXXXXX");
    cr_assert_not_null(mkdtemp(place->path));
    place_open_as(place, MAP_BYTES, false);
}

static void place_free(struct place *place)
{
    store_close(&place->store);
    shell("rm -rf %s%s", place->path, "");
}

static void place_copy(const struct place *from, struct place *to)
{
    snprintf(to->path, sizeof to->path, "/tmp/kv-redo-XXXXXX");
    cr_assert_not_null(mkdtemp(to->path));
    shell("cp %s/* %s", from->path, to->path);
}

static void expect_clean(struct place *place)
{
    cr_assert_eq(store_check(place->store, place->why, sizeof place->why), KV_OK, "%s", place->why);
}

/* ---- generations -------------------------------------------------------------------------------------------------- */

struct generation {
    struct overlay *rows;
    struct store_meta meta;
};

static struct kv_hash hash_of(uint64_t content)
{
    struct kv_hash hash;
    for (size_t i = 0; i < KV_HASH_BYTES; i++)
        hash.bytes[i] = (uint8_t)((content + i) * 2654435761u >> 11);
    memcpy(hash.bytes + 8, &content, sizeof content);
    return hash;
}

static uint8_t bytes_of_any[LARGE_BYTES];

/* Every third is longer than a record of LMDB, and shares its beginning with few others. */
static struct kv_slice key_of(unsigned index, char space[2048])
{
    size_t bytes = (size_t)snprintf(space, 2048, "key/%06u", index * 7919 % 100000);
    if (index % 3 == 0) {
        bytes = (size_t)snprintf(space, 2048, "key/%04u", index / 9 * 7919 % 10000);
        memset(space + bytes, 'x', 1200);
        bytes += 1200 + (size_t)snprintf(space + bytes + 1200, 100, "/%u", index);
    }
    return kv_slice(space, bytes);
}

static void put_key(struct generation *to, unsigned index, uint64_t txn_id)
{
    char key[2048];
    uint8_t space[ROW_KEY_BYTES_MAX];
    struct kv_row row = {.hash = hash_of(index), .txn_id = txn_id, .content_type = kv_slice_text("text/plain")};
    overlay_put(to->rows, OVERLAY_KEYS, key_of(index, key), row_encode_key(&row, space), 0);
}

static void delete_key(struct generation *to, unsigned index)
{
    char key[2048];
    overlay_tombstone(to->rows, OVERLAY_KEYS, key_of(index, key), 0);
}

/* object id 0: in its row. */
static void put_object(struct generation *to, uint64_t content, uint64_t id, size_t bytes, uint64_t refs)
{
    uint8_t space[ROW_OBJECT_BYTES_MAX];
    struct kv_hash hash = hash_of(content);
    struct kv_object object = {.size = bytes, .stored_bytes = bytes, .object_id = id, .refs = refs};
    if (id == 0)
        object.bytes = kv_slice(bytes_of_any, bytes);
    overlay_put(to->rows, OVERLAY_OBJECTS, kv_hash_slice(&hash), row_encode_object(&object, space), 0);
    if (id >= to->meta.object_id_next)
        to->meta.object_id_next = id + 1;
}

static void put_blob(struct generation *to, uint64_t id, size_t bytes)
{
    uint8_t space[8];
    overlay_put(to->rows, OVERLAY_BLOBS, row_encode_id(id, space), kv_slice(bytes_of_any, bytes), 0);
}

static void delete_object(struct generation *to, uint64_t content, uint64_t staged_id)
{
    uint8_t space[8];
    struct kv_hash hash = hash_of(content);
    overlay_tombstone(to->rows, OVERLAY_OBJECTS, kv_hash_slice(&hash), 0);
    if (staged_id != 0)
        overlay_tombstone(to->rows, OVERLAY_BLOBS, row_encode_id(staged_id, space), 0);
}

static size_t size_of(unsigned content)
{
    return content % 4 == 0 ? 100 : content % 4 == 1 ? 5000 : content % 4 == 2 ? 9000 : LARGE_BYTES;
}

static void stage(struct place *place, uint64_t id)
{
    struct store_piece piece = {.object_id = id, .bytes = kv_slice(bytes_of_any, LARGE_BYTES)};
    cr_assert_eq(store_stage(place->store, &piece, 1), KV_OK);
}

/* Contents 1 to CONTENTS under ids of the same number: small ones, some with blobs, large staged ones. */
static struct generation first_generation(struct place *place)
{
    struct generation first = {overlay_new(), {.position = 10, .object_id_next = 1}};
    for (unsigned i = 1; i <= CONTENTS; i++) {
        put_key(&first, i, 1);
        put_object(&first, i, i % 4 == 0 ? 0 : i, size_of(i), 1);
        if (size_of(i) == LARGE_BYTES)
            stage(place, i);
        else if (i % 4 != 0)
            put_blob(&first, i, size_of(i));
        first.meta.stored_bytes += size_of(i);
    }
    first.meta.keys = first.meta.objects = CONTENTS;
    first.meta.intents = kv_slice_text("first");
    return first;
}

/* Of each kind a third goes, a third stays with another count, a third is replaced: ids from 1,000 on. Beside these new keys, a staged
 * content that comes and one that comes and goes. */
static struct generation second_generation(void)
{
    struct generation second = {overlay_new(), {.position = 20, .object_id_next = 1}};
    uint64_t keys = CONTENTS, objects = CONTENTS, stored_bytes = 0;
    for (unsigned i = 1; i <= CONTENTS; i++) {
        unsigned fate = i / 4 % 3;
        uint64_t id = i % 4 == 0 ? 0 : fate == 1 ? i : 1000 + i;
        if (fate == 0) {
            delete_key(&second, i);
            delete_object(&second, i, size_of(i) == LARGE_BYTES ? i : 0);
            keys--;
            objects--;
            continue;
        }
        put_key(&second, i, 2);
        put_object(&second, i, id, fate == 2 && id != 0 ? 3000 : size_of(i), 2);
        stored_bytes += fate == 2 && id != 0 ? 3000 : size_of(i);
        if (fate == 2 && id != 0)
            put_blob(&second, id, 3000);
    }
    for (unsigned i = 2001; i <= 2040; i++)
        put_key(&second, i, 2);
    put_object(&second, 3000, 3000, LARGE_BYTES, 40);
    delete_object(&second, 3001, 3001);
    second.meta.keys = keys + 40;
    second.meta.objects = objects + 1;
    second.meta.stored_bytes = stored_bytes + LARGE_BYTES;
    second.meta.object_id_next = 3002;
    second.meta.intents = kv_slice_text("second");
    return second;
}

static enum kv_err apply(struct place *place, const struct generation *generation)
{
    return store_apply(place->store, generation->rows, &generation->meta, NULL, 0, 100);
}

/* The first generation, and what is staged for the second. */
static void place_begin(struct place *place)
{
    place_init(place);
    struct generation first = first_generation(place);
    store_bound(place->store, UINT64_MAX);
    cr_assert_eq(apply(place, &first), KV_OK);
    stage(place, 3000);
    stage(place, 3001);
    expect_clean(place);
    overlay_free(&first.rows);
}

/* All rows of all tables, but for what says how far a sweep has come: that is finished. */
static struct kv_buf dump(struct place *place)
{
    struct kv_buf out = {0};
    struct store_txn *txn = NULL;
    while (store_sweep(place->store, NULL, 0, 1000) == KV_OK)
        ;
    cr_assert_eq(txn_begin_read(place->store->env, &txn), KV_OK);
    for (enum store_table table = 0; table < STORE_TABLES; table++) {
        struct kv_slice key, value;
        enum kv_err err = txn_seek(txn, table, kv_slice(NULL, 0), &key, &value);
        for (; err == KV_OK; err = txn_next(txn, table, &key, &value)) {
            kv_buf_append(&out, kv_slice(&key.bytes, sizeof key.bytes));
            kv_buf_append(&out, key);
            kv_buf_append(&out, kv_slice(&value.bytes, sizeof value.bytes));
            kv_buf_append(&out, value);
        }
        cr_assert_eq(err, KV_NOT_FOUND);
    }
    txn_abort(&txn);
    return out;
}

static struct kv_buf dump_of_whole(const struct place *begun)
{
    struct place whole;
    struct generation second = second_generation();
    place_copy(begun, &whole);
    place_open_as(&whole, MAP_BYTES, false);
    store_bound(whole.store, UINT64_MAX);
    cr_assert_eq(apply(&whole, &second), KV_OK);
    expect_clean(&whole);
    struct kv_buf out = dump(&whole);
    overlay_free(&second.rows);
    place_free(&whole);
    return out;
}

/* What a start does: gives whether something was half applied. */
static bool get_redo(struct place *place, struct store_redo *out)
{
    cr_assert_eq(store_read_begin(place->store), KV_OK);
    enum kv_err err = store_get_redo(place->store, place->why, sizeof place->why, out);
    store_read_end(place->store);
    cr_assert(err == KV_OK || err == KV_NOT_FOUND, "%s", place->why);
    return err == KV_OK;
}

static uint64_t position_of(struct place *place)
{
    struct kv_buf intents = {0};
    struct store_meta meta;
    cr_assert_eq(store_read_begin(place->store), KV_OK);
    cr_assert_eq(store_get_meta(place->store, &meta, &intents), KV_OK);
    store_read_end(place->store);
    kv_buf_free(&intents);
    return meta.position;
}

/* From whatever state: the rest of what is half applied, or the generation, as replay would make it again. */
static void finish(struct place *place)
{
    struct generation second = second_generation();
    struct store_redo redo = {0};
    if (get_redo(place, &redo))
        cr_assert_eq(store_apply(place->store, redo.rows, &redo.meta, NULL, 0, 100), KV_OK);
    else if (position_of(place) == 10)
        cr_assert_eq(apply(place, &second), KV_OK);
    cr_expect_eq(position_of(place), 20);
    store_redo_free(&redo);
    overlay_free(&second.rows);
}

static bool has_file(const struct place *place)
{
    char path[96];
    snprintf(path, sizeof path, "%s/redo", place->path);
    return access(path, F_OK) == 0;
}

/* In a process that ends at flush `at`. Gives whether it did. */
static bool killed_at(struct place *place, unsigned at)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        place_open_as(place, MAP_BYTES, false);
        flushes_left = at;
        finish(place);
        _exit(0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == KILLED), "%x", status);
    return WEXITSTATUS(status) == KILLED;
}

static void expect_check_of_files(struct place *place)
{
    place_open_as(place, MAP_BYTES, true);
    expect_clean(place);
    store_close(&place->store);
}

/* ---- tests -------------------------------------------------------------------------------------------------------- */

TestSuite(store_redo, .timeout = 600);

Test(store_redo, pieces_are_the_same_as_one_transaction)
{
    struct place begun;
    struct generation second = second_generation();
    place_begin(&begun);
    struct kv_buf expected = dump_of_whole(&begun);
    store_bound(begun.store, BOUND_BYTES);
    flushes = 0;
    cr_assert_eq(apply(&begun, &second), KV_OK);
    cr_expect_gt(flushes, overlay_rows(second.rows) / 3, "%u flushes for %zu rows", flushes, overlay_rows(second.rows));
    cr_expect_not(has_file(&begun));
    expect_clean(&begun);
    struct kv_buf pieces = dump(&begun);
    cr_expect(kv_slice_equal(kv_buf_peek(&expected), kv_buf_peek(&pieces)));
    kv_buf_free(&expected);
    kv_buf_free(&pieces);
    overlay_free(&second.rows);
    place_free(&begun);
}

/* The files are checked in every state between, and taken further from there by a process that may end, too. */
Test(store_redo, a_process_may_end_at_a_flush)
{
    struct place begun, place;
    unsigned halves = 0, at = 1;
    place_begin(&begun);
    struct kv_buf expected = dump_of_whole(&begun);
    for (bool ended = true; ended; at += at < 12 ? 1 : 6) {
        struct store_redo redo = {0};
        place_copy(&begun, &place);
        ended = killed_at(&place, at);
        expect_check_of_files(&place);
        killed_at(&place, 1 + at * 7 % 19);
        expect_check_of_files(&place);
        place_open_as(&place, MAP_BYTES, false);
        bool half = get_redo(&place, &redo);
        halves += half;
        cr_expect_eq(rig_format_on_disk(place.store), half ? STORE_FORMAT_VERSION_HALF : STORE_FORMAT_VERSION,
                     "flush %u", at);
        store_redo_free(&redo);
        finish(&place);
        expect_clean(&place);
        cr_expect_not(has_file(&place), "flush %u", at);
        cr_expect_eq(rig_format_on_disk(place.store), STORE_FORMAT_VERSION, "flush %u", at);
        struct kv_buf found = dump(&place);
        cr_expect(kv_slice_equal(kv_buf_peek(&expected), kv_buf_peek(&found)), "flush %u", at);
        kv_buf_free(&found);
        place_free(&place);
    }
    cr_expect_gt(at, 15);
    cr_expect_gt(halves, 10);
    kv_buf_free(&expected);
    place_free(&begun);
}

/* LMDB keeps in memory what it is going to write, until the flush. */
Test(store_redo, no_transaction_is_large)
{
    enum { ROWS = 30000, CHANGED_EACH = 3 };
    struct place place;
    struct generation first = {overlay_new(), {.position = 1, .object_id_next = 1}};
    struct generation second = {overlay_new(), {.position = 2, .object_id_next = 1}};
    place_init(&place);
    for (unsigned i = 0; i < ROWS; i++)
        put_object(&first, i, 0, 100, 1);
    for (unsigned i = 0; i < ROWS; i += CHANGED_EACH)
        put_object(&second, i, 0, 100, 2);
    first.meta.objects = second.meta.objects = ROWS;
    first.meta.stored_bytes = second.meta.stored_bytes = ROWS * 100;
    store_bound(place.store, UINT64_MAX);
    cr_assert_eq(apply(&place, &first), KV_OK);
    cr_expect_gt(written_max, 1000u * 4096);
    store_bound(place.store, 256 * 4096);
    written_max = 0;
    cr_assert_eq(apply(&place, &second), KV_OK);
    cr_expect_lt(written_max, 128 * 4096, "%zu", written_max); /* 65 leaves, what leads there, free pages */
    expect_clean(&place);
    overlay_free(&first.rows);
    overlay_free(&second.rows);
    place_free(&place);
}

/* A store that is near anyway takes all in one. */
Test(store_redo, small_stores_and_small_generations_do_without)
{
    struct place begun;
    struct generation second = second_generation();
    place_begin(&begun);
    store_bound(begun.store, UINT64_MAX);
    flushes = 0;
    cr_assert_eq(apply(&begun, &second), KV_OK);
    cr_expect_eq(flushes, 1);
    overlay_free(&second.rows);
    place_free(&begun);
}
