/* Goal: the overlay is the same map as a plain sorted array, whatever happens to it.
 * Method: seeded random puts, tombstones, forgets, seeks and walks on both, compared after every step; keys share prefixes
 * around the cached 8 bytes, with zero bytes that the padding could confuse. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "overlay.h"

#define MODEL_ROWS_MAX 512

struct model_row {
    uint8_t key[24], value[3000];
    size_t key_bytes, value_bytes;
    bool tombstone;
    uint64_t position;
};

struct model {
    struct model_row *rows; /* sorted */
    size_t count;
};

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static struct kv_slice model_key(const struct model_row *row)
{
    return kv_slice(row->key, row->key_bytes);
}

static size_t model_lower(const struct model *model, struct kv_slice key)
{
    size_t at = 0;
    while (at < model->count && kv_slice_compare(model_key(&model->rows[at]), key) < 0)
        at++;
    return at;
}

static struct model_row *model_get(struct model *model, struct kv_slice key)
{
    size_t at = model_lower(model, key);
    return at < model->count && kv_slice_equal(model_key(&model->rows[at]), key) ? &model->rows[at] : NULL;
}

static struct model_row *model_make(struct model *model, struct kv_slice key)
{
    size_t at = model_lower(model, key);
    if (at == model->count || !kv_slice_equal(model_key(&model->rows[at]), key)) {
        memmove(&model->rows[at + 1], &model->rows[at], (model->count - at) * sizeof *model->rows);
        memset(&model->rows[at], 0, sizeof *model->rows);
        memcpy(model->rows[at].key, key.data, key.bytes);
        model->rows[at].key_bytes = key.bytes;
        model->count++;
    }
    return &model->rows[at];
}

static void model_forget(struct model *model, struct kv_slice key)
{
    struct model_row *row = model_get(model, key);
    if (!row)
        return;
    size_t at = (size_t)(row - model->rows);
    memmove(row, row + 1, (model->count - at - 1) * sizeof *row);
    model->count--;
}

static bool same(const struct overlay_row *row, const struct model_row *model)
{
    if (!row || !model)
        return !row && !model;
    return kv_slice_equal(overlay_key(row), model_key(model)) && row->tombstone == model->tombstone &&
           row->position == model->position &&
           (row->tombstone || kv_slice_equal(overlay_value(row), kv_slice(model->value, model->value_bytes)));
}

/* Keys of 0 to 12 bytes out of three letters, the zero byte among them: many equal and many that are prefixes. */
static struct kv_slice random_key(uint64_t *state, uint8_t space[24])
{
    static const uint8_t letters[3] = {0x00, 0x01, 0xff};
    size_t bytes = 6 + random_next(state) % 4;
    memset(space, 'p', 6);
    for (size_t i = 6; i < bytes; i++)
        space[i] = letters[random_next(state) % 3];
    if (random_next(state) % 8 == 0)
        bytes = random_next(state) % 3;
    return kv_slice(space, bytes);
}

static void step(struct overlay *overlay, struct model *model, uint64_t *state, uint64_t position)
{
    uint8_t space[24];
    struct kv_slice key = random_key(state, space);
    uint64_t what = random_next(state) % 10;
    if (what < 6) {
        struct model_row *row = model_make(model, key);
        row->value_bytes =
            random_next(state) % 4 == 0 ? random_next(state) % sizeof row->value : random_next(state) % 40;
        memset(row->value, (int)(position & 0xff), row->value_bytes);
        row->tombstone = false;
        row->position = position;
        overlay_put(overlay, OVERLAY_KEYS, key, kv_slice(row->value, row->value_bytes), position);
    } else if (what < 8) {
        struct model_row *row = model_make(model, key);
        row->tombstone = true;
        row->position = position;
        overlay_tombstone(overlay, OVERLAY_KEYS, key, position);
    } else {
        model_forget(model, key);
        overlay_forget(overlay, OVERLAY_KEYS, key);
    }
    cr_assert(same(overlay_get(overlay, OVERLAY_KEYS, key), model_get(model, key)), "step %zu", (size_t)position);
}

static unsigned order_all(struct overlay *overlay, size_t steps_max)
{
    unsigned pieces = 1;
    while (!overlay_order(overlay, steps_max))
        pieces++;
    return pieces;
}

static void compare_walk(struct overlay *overlay, struct model *model, struct kv_slice from, uint64_t at_step)
{
    order_all(overlay, 1 + at_step % 7);
    const struct overlay_row *row = overlay_seek(overlay, from);
    for (size_t at = model_lower(model, from); at < model->count; at++) {
        cr_assert(same(row, &model->rows[at]), "step %zu, row %zu", (size_t)at_step, at);
        row = overlay_next(row);
    }
    cr_assert_null(row);
}

Test(overlay, agrees_with_a_sorted_array)
{
    for (uint64_t seed = 1; seed <= 8; seed++) {
        uint64_t state = seed * 0x9e3779b97f4a7c15u;
        struct overlay *overlay = overlay_new();
        struct model model = {calloc(MODEL_ROWS_MAX, sizeof(struct model_row)), 0};
        for (uint64_t position = 1; position <= 1500; position++) {
            step(overlay, &model, &state, position);
            cr_assert_eq(overlay_rows(overlay), model.count);
            uint8_t space[24];
            if (position % 10 == 0)
                compare_walk(overlay, &model, random_key(&state, space), position);
        }
        cr_assert_gt(model.count, 20, "the test means something");
        compare_walk(overlay, &model, kv_slice(NULL, 0), 0);
        free(model.rows);
        overlay_free(&overlay);
        cr_assert_null(overlay);
    }
}

static void put_number(struct overlay *overlay, uint32_t n)
{
    uint32_t key = n * 2654435761u; /* each once, in no order */
    overlay_put(overlay, OVERLAY_KEYS, kv_slice(&key, sizeof key), kv_slice(NULL, 0), n);
}

static size_t walk_all(const struct overlay *overlay)
{
    size_t walked = 0;
    const struct overlay_row *last = NULL, *row = overlay_seek(overlay, kv_slice(NULL, 0));
    for (; row != NULL; last = row, row = overlay_next(row), walked++)
        cr_assert(last == NULL || kv_slice_compare(overlay_key(last), overlay_key(row)) < 0, "row %zu", walked);
    return walked;
}

/* What keeps the loop from all else is bounded by a number of steps at a time, and so is the number of times: it grows with the rows
 * that came since the last walk, not with those that were there. */
Test(overlay, keys_are_put_in_order_piece_by_piece)
{
    enum { KEYS = 100000, PIECE = 2048, MORE = 5000 };
    struct overlay *overlay = overlay_new();
    cr_expect(overlay_order(overlay, 1), "nothing to do");
    for (uint32_t n = 0; n < KEYS; n++)
        put_number(overlay, n);
    unsigned pieces = order_all(overlay, PIECE);
    cr_expect_geq(pieces, 2 * KEYS / PIECE, "%u", pieces); /* each is sorted, and merged */
    cr_expect_leq(pieces, 4 * KEYS / PIECE, "%u", pieces);
    cr_expect_eq(walk_all(overlay), KEYS);
    cr_expect(overlay_order(overlay, 0), "they stay in order");
    for (uint32_t n = KEYS - 10; n < KEYS + MORE; n++)
        put_number(overlay, n);
    pieces = order_all(overlay, PIECE);
    cr_expect_geq(pieces, 2 * MORE / PIECE, "%u", pieces);
    cr_expect_leq(pieces, 40 * MORE / PIECE, "%u", pieces); /* a way down is some dozen steps */
    cr_expect_eq(walk_all(overlay), KEYS + MORE);
    overlay_free(&overlay);
}

/* Rows that come, move and go while others are on their way into the order. */
Test(overlay, changes_between_two_pieces_are_seen)
{
    enum { KEYS = 1000 };
    for (size_t pieces = 1; pieces < 60; pieces++) {
        struct overlay *overlay = overlay_new();
        uint8_t large[100] = {0};
        for (uint32_t n = 0; n < KEYS; n++)
            put_number(overlay, n);
        for (size_t i = 0; i < pieces; i++)
            overlay_order(overlay, 50);
        for (uint32_t n = 0; n < KEYS; n += 2) {
            uint32_t key = n * 2654435761u;
            if (n % 4 == 0)
                overlay_forget(overlay, OVERLAY_KEYS, kv_slice(&key, sizeof key));
            else
                overlay_put(overlay, OVERLAY_KEYS, kv_slice(&key, sizeof key), kv_slice(large, sizeof large), 1);
        }
        put_number(overlay, KEYS);
        order_all(overlay, 50);
        cr_assert_eq(walk_all(overlay), KEYS - KEYS / 4 + 1, "%zu pieces", pieces);
        overlay_free(&overlay);
    }
    struct overlay *overlay = overlay_new();
    put_number(overlay, 1);
    put_number(overlay, 2);
    cr_expect_not(overlay_order(overlay, 1), "given up half way: for the leak checker");
    overlay_free(&overlay);
}

static void *sort_keys(void *arg)
{
    size_t count;
    const struct overlay_row **rows = overlay_sorted(arg, OVERLAY_KEYS, &count);
    for (size_t i = 1; i < count; i++)
        cr_assert(kv_slice_compare(overlay_key(rows[i - 1]), overlay_key(rows[i])) < 0, "row %zu", i);
    free(rows);
    return NULL;
}

/* A frozen generation: the loop walks it for the first time while the applier sorts it. For the thread sanitizer. */
Test(overlay, a_first_walk_meets_the_applier)
{
    enum { KEYS = 20000 };
    struct overlay *overlay = overlay_new();
    pthread_t applier;
    for (uint32_t n = 0; n < KEYS; n++)
        put_number(overlay, n);
    cr_assert_eq(pthread_create(&applier, NULL, sort_keys, overlay), 0);
    order_all(overlay, 100);
    cr_expect_eq(walk_all(overlay), KEYS);
    pthread_join(applier, NULL);
    overlay_free(&overlay);
}

/* What the applier writes: every row of the table, tombstones too, in the order of the whole keys and not of their first 8 bytes. */
static void compare_sorted(const struct overlay *overlay, struct model *model, uint64_t at_step)
{
    size_t count = 0;
    const struct overlay_row **rows = overlay_sorted(overlay, OVERLAY_KEYS, &count);
    cr_assert_eq(count, model->count, "step %zu", (size_t)at_step);
    for (size_t at = 0; at < count; at++)
        cr_assert(same(rows[at], &model->rows[at]), "step %zu, row %zu", (size_t)at_step, at);
    free(rows);
}

Test(overlay, sorted_rows_are_the_sorted_array)
{
    for (uint64_t seed = 1; seed <= 8; seed++) {
        uint64_t state = seed * 0xd1342543de82ef95u;
        struct overlay *overlay = overlay_new();
        struct model model = {calloc(MODEL_ROWS_MAX, sizeof(struct model_row)), 0};
        compare_sorted(overlay, &model, 0);
        for (uint64_t position = 1; position <= 600; position++) {
            step(overlay, &model, &state, position);
            if (position % 20 == 0)
                compare_sorted(overlay, &model, position);
        }
        cr_assert_gt(model.count, 20, "the test means something");
        free(model.rows);
        overlay_free(&overlay);
    }
}

Test(overlay, sorting_leaves_the_other_tables_out)
{
    struct overlay *overlay = overlay_new();
    size_t count = 99;
    overlay_put(overlay, OVERLAY_OBJECTS, kv_slice_text("b"), kv_slice_text("2"), 3);
    overlay_tombstone(overlay, OVERLAY_OBJECTS, kv_slice_text("a"), 4);
    overlay_put(overlay, OVERLAY_BLOBS, kv_slice_text("12345678"), kv_slice_text("3"), 0);
    const struct overlay_row **rows = overlay_sorted(overlay, OVERLAY_OBJECTS, &count);
    cr_assert_eq(count, 2u);
    cr_expect(kv_slice_equal(overlay_key(rows[0]), kv_slice_text("a")) && rows[0]->tombstone && rows[0]->position == 4);
    cr_expect(kv_slice_equal(overlay_key(rows[1]), kv_slice_text("b")) && !rows[1]->tombstone);
    free(rows);
    rows = overlay_sorted(overlay, OVERLAY_KEYS, &count);
    cr_expect_eq(count, 0u);
    free(rows);
    overlay_free(&overlay);
}

/* Keys of one application begin alike: what they share is left out of the comparison, the one that is no longer included. */
Test(overlay, keys_that_share_their_beginning_are_sorted)
{
    struct overlay *overlay = overlay_new();
    size_t count;
    overlay_put(overlay, OVERLAY_KEYS, kv_slice_text("users/2024/"), kv_slice_text("v"), 1);
    for (unsigned i = 0; i < 1000; i++) {
        char key[64];
        int bytes = snprintf(key, sizeof key, "users/2024/%u/%u", i * 7919 % 1000, i % 3);
        overlay_put(overlay, OVERLAY_KEYS, kv_slice(key, (size_t)bytes + i % 2), kv_slice_text("v"),
                    1); /* some end in 0 */
    }
    const struct overlay_row **rows = overlay_sorted(overlay, OVERLAY_KEYS, &count);
    cr_assert_eq(count, 1001);
    for (size_t i = 1; i < count; i++)
        cr_expect(kv_slice_compare(overlay_key(rows[i - 1]), overlay_key(rows[i])) < 0, "row %zu", i);
    free((void *)rows);
    overlay_free(&overlay);
}

Test(overlay, tables_are_apart)
{
    struct overlay *overlay = overlay_new();
    struct kv_slice key = kv_slice_text("12345678");
    overlay_put(overlay, OVERLAY_OBJECTS, key, kv_slice_text("object"), 3);
    cr_expect_null(overlay_get(overlay, OVERLAY_KEYS, key));
    cr_expect_null(overlay_get(overlay, OVERLAY_BLOBS, key));
    cr_expect_null(overlay_seek(overlay, kv_slice(NULL, 0)));
    cr_expect(kv_slice_equal(overlay_value(overlay_get(overlay, OVERLAY_OBJECTS, key)), kv_slice_text("object")));
    overlay_free(&overlay);
}

/* Asking ahead finds what a look-up finds, but for one in some hundred that is not there, and whatever was forgotten. */
Test(overlay, what_is_asked_for_ahead)
{
    enum { ROWS = 20000 };
    struct overlay *overlay = overlay_new();
    unsigned wrong = 0;
    overlay_fetch_place(overlay, OVERLAY_OBJECTS, 1);
    cr_expect_not(overlay_fetch_row(overlay, OVERLAY_OBJECTS, 1), "it is empty");
    for (uint64_t n = 0; n < ROWS; n++)
        overlay_put(overlay, OVERLAY_OBJECTS, kv_slice(&n, sizeof n), kv_slice_text("row"), 1);
    for (uint64_t n = 0; n < ROWS / 2; n++)
        overlay_forget(overlay, OVERLAY_OBJECTS, kv_slice(&n, sizeof n));
    for (uint64_t n = 0; n < ROWS; n++) {
        uint64_t hash = overlay_hash(kv_slice(&n, sizeof n));
        overlay_fetch_place(overlay, OVERLAY_OBJECTS, hash);
        bool found = overlay_fetch_row(overlay, OVERLAY_OBJECTS, hash);
        cr_expect(found || n < ROWS / 2);
        wrong += found && n < ROWS / 2;
        cr_expect_not(overlay_fetch_row(overlay, OVERLAY_KEYS, hash));
    }
    cr_expect_lt(wrong, ROWS / 2 / 20);
    overlay_free(&overlay);
}

/* In place, and out of a block that the row leaves. */
Test(overlay, value_may_borrow_from_the_row_it_replaces)
{
    for (enum overlay_table table = OVERLAY_KEYS; table < OVERLAY_TABLES; table++) {
        struct overlay *overlay = overlay_new();
        struct kv_slice key = kv_slice_text("k");
        overlay_put(overlay, table, key, kv_slice_text("0123456789"), 1);
        struct kv_slice old = overlay_value(overlay_get(overlay, table, key));
        overlay_put(overlay, table, key, kv_slice(old.data + 1, 8), 2);
        cr_expect(kv_slice_equal(overlay_value(overlay_get(overlay, table, key)), kv_slice_text("12345678")));
        old = overlay_value(overlay_get(overlay, table, key));
        overlay_put(overlay, table, key, kv_slice(old.data + 2, 1), 3);
        cr_expect(kv_slice_equal(overlay_value(overlay_get(overlay, table, key)), kv_slice_text("3")));
        overlay_free(&overlay);
    }
}

/* A key that is overwritten over and over, with content types of all lengths, takes no more than its longest row did. */
Test(overlay, a_key_that_shrinks_and_grows_stays_where_it_is)
{
    struct overlay *overlay = overlay_new();
    static const uint8_t row[300];
    overlay_put(overlay, OVERLAY_KEYS, kv_slice_text("key"), kv_slice(row, sizeof row), 1);
    size_t bytes = overlay_bytes(overlay);
    for (size_t i = 0; i < 1000; i++) {
        overlay_put(overlay, OVERLAY_KEYS, kv_slice_text("key"), kv_slice(row, i * 7 % sizeof row), 1);
        if (i % 5 == 0)
            overlay_tombstone(overlay, OVERLAY_KEYS, kv_slice_text("key"), 2);
    }
    cr_expect_eq(overlay_bytes(overlay), bytes);
    overlay_free(&overlay);
}

/* What a PUT of 100 bytes under a new key, and then the overwrite of one, take: how many of them make a generation. */
Test(overlay, rows_of_a_write_take_little_more_than_what_they_hold)
{
    enum { WRITES = 40000, KEY = 16, KEY_ROW = 56 + 24, CONTENT = 32, OBJECT_ROW = 108 + 17 };
    enum { HELD = KEY + KEY_ROW + CONTENT + OBJECT_ROW };
    struct overlay *overlay = overlay_new();
    static const uint8_t row[OBJECT_ROW];
    uint8_t name[CONTENT] = {0};
    for (uint32_t n = 0; n < WRITES; n++) {
        memcpy(name, &n, sizeof n);
        overlay_put(overlay, OVERLAY_KEYS, kv_slice(name, KEY), kv_slice(row, KEY_ROW), n);
        overlay_put(overlay, OVERLAY_OBJECTS, kv_slice(name, CONTENT), kv_slice(row, OBJECT_ROW), n);
    }
    cr_expect_leq(overlay_bytes(overlay) / WRITES, HELD + 100, "%zu bytes a write", overlay_bytes(overlay) / WRITES);
    for (uint32_t n = 0; n < WRITES; n++) {
        uint32_t old = WRITES + n;
        memcpy(name, &old, sizeof old);
        overlay_tombstone(overlay, OVERLAY_OBJECTS, kv_slice(name, CONTENT), n);
    }
    cr_expect_leq(overlay_bytes(overlay) / WRITES, HELD + CONTENT + 145, "%zu bytes an overwrite",
                  overlay_bytes(overlay) / WRITES);
    overlay_free(&overlay);
}

Test(overlay, blobs_of_all_sizes_and_bytes_that_are_counted)
{
    struct overlay *overlay = overlay_new();
    static uint8_t blob[65536];
    size_t stored = 0;
    for (size_t i = 0; i < 200; i++) {
        uint8_t key[8] = {0, 0, 0, 0, 0, 0, (uint8_t)(i >> 8), (uint8_t)i};
        size_t bytes = i * 331 % sizeof blob;
        memset(blob, (int)i, bytes);
        overlay_put(overlay, OVERLAY_BLOBS, kv_slice(key, 8), kv_slice(blob, bytes), 0);
        stored += bytes;
    }
    cr_expect_geq(overlay_bytes(overlay), stored);
    cr_expect_leq(overlay_bytes(overlay), stored + stored / 8 + 200 * 64);
    size_t count;
    const struct overlay_row **rows = overlay_sorted(overlay, OVERLAY_BLOBS, &count);
    cr_assert_eq(count, 200);
    for (size_t n = 0; n < count; n++) {
        struct kv_slice value = overlay_value(rows[n]);
        cr_assert_eq(value.bytes, n * 331 % sizeof blob);
        for (size_t i = 0; i < value.bytes; i++)
            cr_assert_eq(value.data[i], (uint8_t)n);
    }
    free(rows);
    overlay_free(&overlay);
}

/* Put and forget over and over must not grow: blocks are used again. */
Test(overlay, forgotten_rows_make_room)
{
    struct overlay *overlay = overlay_new();
    static uint8_t blob[60000];
    size_t first = 0;
    for (size_t round = 0; round < 1000; round++) {
        overlay_put(overlay, OVERLAY_BLOBS, kv_slice_text("abcdefgh"), kv_slice(blob, sizeof blob), round);
        overlay_forget(overlay, OVERLAY_BLOBS, kv_slice_text("abcdefgh"));
        if (round == 0)
            first = overlay_bytes(overlay);
    }
    cr_expect_eq(overlay_bytes(overlay), first);
    cr_expect_eq(overlay_rows(overlay), 0);
    overlay_free(&overlay);
}
