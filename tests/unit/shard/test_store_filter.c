/* Goal: a filter denies no row that is there, whatever comes and goes while it is built, and spares LMDB what is not.
 * Method: a store in a temporary directory; generations of numbered keys and contents, applied between the steps; a second thread
 * that applies and learns while the first one reads, as applier and loop do. */
#include <criterion/criterion.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "rows.h"
#include "store_internal.h"

#define MAP_BYTES (256u << 20)
#define MANY (STORE_FILTER_STEP_ROWS + 5000u) /* rows of one table: more than a step reads */
#define KEY_BYTES 24u

static const struct store_identity identity = {0, 1, "0123456789abcdef0123456789abcdef"};

struct place {
    char path[64];
    struct store *store;
    struct store_meta meta;
    char why[256];
};

static void place_init(struct place *place)
{
    memset(place, 0, sizeof *place);
    snprintf(place->path, sizeof place->path, "/tmp/kv-filter-XXXXXX");
    cr_assert_not_null(mkdtemp(place->path));
    place->meta.object_id_next = 1;
    cr_assert_eq(store_open(place->path, MAP_BYTES, false, &identity, place->why, sizeof place->why, &place->store),
                 KV_OK);
}

static void place_free(struct place *place)
{
    char command[128];
    store_close(&place->store);
    snprintf(command, sizeof command, "rm -rf %s", place->path);
    cr_assert_eq(system(command), 0);
}

/* Neighbouring numbers lie apart. */
static struct kv_slice key_of(uint64_t n, char space[KEY_BYTES])
{
    int bytes = snprintf(space, KEY_BYTES, "%016llx", (unsigned long long)(n * 0x9e3779b97f4a7c15u));
    return kv_slice(space, (size_t)bytes);
}

static struct kv_hash hash_of(uint64_t n)
{
    struct kv_hash hash = {{0}};
    n *= 0x9e3779b97f4a7c15u;
    memcpy(hash.bytes, &n, sizeof n);
    return hash;
}

static void put_row(struct overlay *overlay, struct kv_slice key)
{
    uint8_t space[ROW_KEY_BYTES_MAX];
    struct kv_row row = {.txn_id = 1};
    overlay_put(overlay, OVERLAY_KEYS, key, row_encode_key(&row, space), 0);
}

static void put_content(struct overlay *overlay, uint64_t n)
{
    uint8_t space[ROW_OBJECT_BYTES_MAX];
    struct kv_hash hash = hash_of(n);
    struct kv_object object = {.object_id = n + 1, .refs = 1};
    overlay_put(overlay, OVERLAY_OBJECTS, kv_hash_slice(&hash), row_encode_object(&object, space), 0);
}

static void apply(struct place *place, struct overlay **overlay)
{
    place->meta.position++;
    cr_assert_eq(store_apply(place->store, *overlay, &place->meta, NULL, 0, 0), KV_OK);
    overlay_free(overlay);
}

static void apply_range(struct place *place, uint64_t from, uint64_t to)
{
    char space[KEY_BYTES];
    struct overlay *overlay = overlay_new();
    for (uint64_t n = from; n < to; n++) {
        put_row(overlay, key_of(n, space));
        put_content(overlay, n);
    }
    apply(place, &overlay);
}

static void delete_range(struct place *place, uint64_t from, uint64_t to)
{
    char space[KEY_BYTES];
    struct overlay *overlay = overlay_new();
    for (uint64_t n = from; n < to; n++) {
        struct kv_hash hash = hash_of(n);
        overlay_tombstone(overlay, OVERLAY_KEYS, key_of(n, space), 0);
        overlay_tombstone(overlay, OVERLAY_OBJECTS, kv_hash_slice(&hash), 0);
    }
    apply(place, &overlay);
}

static bool has(struct place *place, uint64_t n)
{
    char space[KEY_BYTES];
    struct kv_slice row;
    struct kv_hash hash = hash_of(n);
    enum kv_err key = store_get_key(place->store, key_of(n, space), &row);
    enum kv_err object = store_get_object(place->store, &hash, &row);
    cr_assert_eq(key, object, "row %llu", (unsigned long long)n);
    cr_assert(key == KV_OK || key == KV_NOT_FOUND);
    return key == KV_OK;
}

static void expect_range(struct place *place, uint64_t from, uint64_t to, bool there)
{
    cr_assert_eq(store_read_begin(place->store), KV_OK);
    for (uint64_t n = from; n < to; n++)
        cr_assert_eq(has(place, n), there, "row %llu", (unsigned long long)n);
    store_read_end(place->store);
}

/* Lookups that LMDB was asked in vain, of rows that were never there. */
static uint64_t asked_in_vain(struct place *place, uint64_t rows)
{
    uint64_t before = place->store->filter.absent;
    expect_range(place, 1u << 30, (1u << 30) + rows, false);
    return place->store->filter.absent - before;
}

static void learn_all(struct place *place)
{
    enum kv_err err;
    while ((err = store_learn(place->store)) == KV_OK)
        ;
    cr_assert_eq(err, KV_NOT_FOUND);
}

Test(store_filter, begins_when_lookups_were_in_vain_and_spares_them)
{
    struct place place;
    place_init(&place);
    apply_range(&place, 0, 1000);
    learn_all(&place);
    cr_expect_eq(asked_in_vain(&place, 1000), 2000u, "there is none yet");
    learn_all(&place);
    cr_expect_eq(asked_in_vain(&place, 1048), 2096u, "4,096 lookups make it due");
    learn_all(&place);
    cr_expect_lt(asked_in_vain(&place, 1000), 20u);
    expect_range(&place, 0, 1000, true);
    struct store_usage usage;
    cr_assert_eq(store_read_begin(place.store), KV_OK);
    cr_assert_eq(store_usage(place.store, &usage), KV_OK);
    store_read_end(place.store);
    cr_expect_eq(usage.absent_by_filter + usage.absent_by_lmdb, 2000u + 2096u + 2000u);
    cr_expect_gt(usage.absent_by_filter, 1980u);
    place_free(&place);
}

Test(store_filter, knows_rows_that_come_and_go_while_it_is_built)
{
    struct place place;
    place_init(&place);
    apply_range(&place, 0, MANY);
    asked_in_vain(&place, STORE_FILTER_ABSENT);
    uint64_t next = MANY;
    unsigned steps = 0;
    for (; store_learn(place.store) == KV_OK; steps++, next += 100) {
        apply_range(&place, next, next + 100); /* in front of where it stands, and behind */
        delete_range(&place, steps * 50, steps * 50 + 50);
        expect_range(&place, next, next + 100, true);
    }
    cr_expect_geq(steps, 3u, "two for each table");
    cr_expect_lt(asked_in_vain(&place, 1000), 40u, "it is built");
    expect_range(&place, steps * 50, next, true);
    expect_range(&place, 0, steps * 50, false);
    apply_range(&place, 0, 50);
    expect_range(&place, 0, 50, true);
    place_free(&place);
}

Test(store_filter, is_made_anew_when_it_is_full)
{
    struct place place;
    place_init(&place);
    apply_range(&place, 0, 10);
    asked_in_vain(&place, STORE_FILTER_ABSENT);
    learn_all(&place);
    struct filter *first = place.store->filter.newest;
    apply_range(&place, 10, MANY);
    cr_expect_eq(place.store->filter.newest, first);
    learn_all(&place);
    cr_expect_neq(place.store->filter.newest, first);
    cr_expect_lt(asked_in_vain(&place, 1000), 40u);
    apply_range(&place, MANY, MANY + 100);
    cr_assert_eq(store_renew(place.store, place.why, sizeof place.why), KV_OK, "it outlives the environment");
    expect_range(&place, 0, MANY + 100, true);
    cr_expect_lt(asked_in_vain(&place, 1000), 40u);
    place_free(&place);
}

/* The loop has not begun to read between two filters: it must not miss the second, nor anybody the first. */
Test(store_filter, one_that_nobody_took_gives_way)
{
    struct place place;
    place_init(&place);
    asked_in_vain(&place, STORE_FILTER_ABSENT);
    learn_all(&place);
    struct filter *first = place.store->filter.newest;
    apply_range(&place, 0, MANY);
    learn_all(&place);
    cr_expect_neq(place.store->filter.newest, first);
    expect_range(&place, 0, MANY, true);
    place_free(&place);
}

Test(store_filter, long_keys_are_looked_up)
{
    static uint8_t bytes[KV_KEY_BYTES_MAX];
    static const size_t lengths[] = {300, 510, 514, 1200, KV_KEY_BYTES_MAX};
    struct place place;
    place_init(&place);
    asked_in_vain(&place, STORE_FILTER_ABSENT);
    learn_all(&place);
    memset(bytes, 'x', sizeof bytes);
    struct overlay *overlay = overlay_new();
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        put_row(overlay, kv_slice(bytes, lengths[i]));
    apply(&place, &overlay);
    cr_assert_eq(store_read_begin(place.store), KV_OK);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct kv_slice row;
        cr_expect_eq(store_get_key(place.store, kv_slice(bytes, lengths[i]), &row), KV_OK, "%zu", lengths[i]);
        cr_expect_eq(store_get_key(place.store, kv_slice(bytes, lengths[i] - 2), &row), KV_NOT_FOUND, "%zu",
                     lengths[i]);
    }
    store_read_end(place.store);
    place_free(&place);
}

/* Who looks many rows up is spared those that are denied, and them alone. */
Test(store_filter, sifts_what_will_be_looked_up)
{
    enum { ROWS = 32 };
    static uint8_t longest[KV_KEY_BYTES_MAX] = {'x'};
    struct place place;
    struct kv_slice keys[ROWS];
    char spaces[ROWS][KEY_BYTES];
    place_init(&place);
    apply_range(&place, 0, 1000);
    for (uint64_t i = 0; i < ROWS; i++)
        keys[i] = key_of(i % 2 == 0 ? i : (1u << 30) + i, spaces[i]);
    keys[1] = kv_slice(longest, sizeof longest);
    cr_expect_eq(store_filter_sift(&place.store->filter, STORE_FILTER_KEYS, keys, ROWS), ROWS, "nothing is known");
    asked_in_vain(&place, STORE_FILTER_ABSENT);
    learn_all(&place);
    expect_range(&place, 0, 1, true); /* the loop takes it */
    uint64_t denied = place.store->filter.denied;
    cr_assert_eq(store_filter_sift(&place.store->filter, STORE_FILTER_KEYS, keys, ROWS), ROWS / 2 + 1);
    cr_expect_eq(keys[0].data, (const uint8_t *)spaces[0]);
    cr_expect_eq(keys[1].data, longest, "its beginning may be there");
    for (size_t i = 2; i <= ROWS / 2; i++)
        cr_expect_eq(keys[i].data, (const uint8_t *)spaces[2 * (i - 1)], "row %zu", i);
    cr_expect_eq(place.store->filter.denied, denied, "they are counted when they are looked up");
    place_free(&place);
}

/* ---- two threads -------------------------------------------------------------------------------------------------- */

#define ROUNDS 60u
#define ROUND_ROWS 2500u

struct pair {
    struct place place;
    _Atomic uint64_t applied; /* rows below it were reported: the overlay has let go of them */
};

static void *apply_and_learn(void *arg)
{
    struct pair *pair = arg;
    for (unsigned round = 0; round < ROUNDS; round++) {
        apply_range(&pair->place, round * ROUND_ROWS, (round + 1) * ROUND_ROWS);
        cr_assert_neq(store_learn(pair->place.store), KV_IO);
        atomic_store(&pair->applied, (round + 1) * ROUND_ROWS);
    }
    return NULL;
}

Test(store_filter, what_was_reported_is_never_denied)
{
    struct pair pair = {0};
    pthread_t thread;
    place_init(&pair.place);
    asked_in_vain(&pair.place, STORE_FILTER_ABSENT);
    cr_assert_eq(pthread_create(&thread, NULL, apply_and_learn, &pair), 0);
    uint64_t applied = 0;
    for (uint64_t turn = 0; applied < ROUNDS * ROUND_ROWS; turn++) {
        applied = atomic_load(&pair.applied);
        cr_assert_eq(store_read_begin(pair.place.store), KV_OK);
        for (uint64_t i = 0; i < 50 && applied > 0; i++)
            cr_assert(has(&pair.place, (turn * 7919 + i * 104729) % applied));
        store_read_end(pair.place.store);
    }
    pthread_join(thread, NULL);
    expect_range(&pair.place, 0, ROUNDS * ROUND_ROWS, true);
    place_free(&pair.place);
}
