/* Goal: keys of 1 to 4,096 bytes are a map in exact byte order, whatever they share.
 * Method: a pool of adversarial keys (common prefixes, 0x00/0x01/0xff around the 510- and 502-byte boundaries) is put and
 * deleted at random through store_apply; gets, seeks from present, absent and mangled keys, and whole walks are compared with
 * a sorted array; store_check finds lost nodes. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "rows.h"
#include "store.h"

#define POOL 300

struct pool_key {
    uint8_t bytes[KV_KEY_BYTES_MAX];
    size_t length;
    uint64_t txn_id; /* 0: not in the store */
};

struct world {
    char path[64];
    struct store *store;
    struct pool_key *pool; /* sorted, distinct */
    size_t count;
    uint64_t txn_next;
    uint64_t random;
};

static uint64_t random_next(struct world *world)
{
    world->random ^= world->random << 13;
    world->random ^= world->random >> 7;
    world->random ^= world->random << 17;
    return world->random;
}

static struct kv_slice key_slice(const struct pool_key *key)
{
    return kv_slice(key->bytes, key->length);
}

static int compare_keys(const void *a, const void *b)
{
    return kv_slice_compare(key_slice(a), key_slice(b));
}

static const size_t boundaries[] = {510, 1012, 1514, 2016, 2518, 3020, 3522, 4024};

static size_t random_length(struct world *world)
{
    switch (random_next(world) % 4) {
    case 0:
        return 1 + random_next(world) % KV_KEY_BYTES_MAX;
    case 1:
        return 470 + random_next(world) % 60;
    case 2: /* close to a boundary */
        return boundaries[random_next(world) % 8] - 2 + random_next(world) % 5;
    default:
        return KV_KEY_BYTES_MAX - random_next(world) % 3;
    }
}

/* A common long prefix, now and then broken by the worst bytes right around a boundary. */
static void make_key(struct world *world, struct pool_key *key)
{
    static const uint8_t worst[3] = {0x00, 0x01, 0xff};
    memset(key, 0, sizeof *key);
    key->length = random_length(world);
    memset(key->bytes, 'k', key->length);
    for (unsigned i = random_next(world) % 4; i > 0; i--) {
        size_t at = boundaries[random_next(world) % 8] - 2 + random_next(world) % 5;
        if (at < key->length)
            key->bytes[at] = worst[random_next(world) % 3];
    }
    if (random_next(world) % 2)
        key->bytes[key->length - 1] = worst[random_next(world) % 3];
}

static void world_init(struct world *world, uint64_t seed)
{
    memset(world, 0, sizeof *world);
    snprintf(world->path, sizeof world->path, "/tmp/kv-longkey-XXXXXX");
    cr_assert_not_null(mkdtemp(world->path));
    struct store_identity identity = {0, 1, "0123456789abcdef0123456789abcdef"};
    char why[256];
    cr_assert_eq(store_open(world->path, 64 << 20, false, &identity, why, sizeof why, &world->store), KV_OK, "%s", why);
    world->random = seed * 0x9e3779b97f4a7c15u;
    world->txn_next = 1;
    world->pool = calloc(POOL, sizeof *world->pool);
    for (size_t i = 0; i < POOL; i++)
        make_key(world, &world->pool[i]);
    qsort(world->pool, POOL, sizeof *world->pool, compare_keys);
    for (size_t i = 0; i < POOL; i++)
        if (i == 0 || compare_keys(&world->pool[world->count - 1], &world->pool[i]) != 0)
            world->pool[world->count++] = world->pool[i];
    cr_assert_gt(world->count, POOL / 2);
}

static void world_free(struct world *world)
{
    char command[128];
    store_close(&world->store);
    snprintf(command, sizeof command, "rm -rf %s", world->path);
    cr_assert_eq(system(command), 0);
    free(world->pool);
}

static uint64_t present(const struct world *world)
{
    uint64_t count = 0;
    for (size_t i = 0; i < world->count; i++)
        count += world->pool[i].txn_id != 0;
    return count;
}

static void apply(struct world *world, struct overlay **overlay)
{
    struct store_meta meta = {.position = world->txn_next, .object_id_next = 1, .keys = present(world)};
    cr_assert_eq(store_apply(world->store, *overlay, &meta, NULL, 0, 0), KV_OK);
    overlay_free(overlay);
}

static void put_or_delete(struct world *world, struct overlay *overlay, struct pool_key *key, bool put)
{
    uint8_t space[ROW_KEY_BYTES_MAX];
    key->txn_id = put ? world->txn_next++ : 0;
    struct kv_row row = {.txn_id = key->txn_id};
    if (put)
        overlay_put(overlay, OVERLAY_KEYS, key_slice(key), row_encode_key(&row, space), 0);
    else
        overlay_tombstone(overlay, OVERLAY_KEYS, key_slice(key), 0);
}

static void change_some(struct world *world, unsigned share)
{
    struct overlay *overlay = overlay_new();
    for (size_t i = 0; i < world->count; i++)
        if (random_next(world) % 100 < share)
            put_or_delete(world, overlay, &world->pool[i], random_next(world) % 2);
    apply(world, &overlay);
}

static void expect_row(const struct pool_key *key, struct kv_slice value)
{
    struct kv_row row;
    cr_assert_eq(row_decode_key(value, &row), KV_OK);
    cr_assert_eq(row.txn_id, key->txn_id, "the row of another key");
}

static void compare_gets(struct world *world)
{
    for (size_t i = 0; i < world->count; i++) {
        struct kv_slice value;
        enum kv_err err = store_get_key(world->store, key_slice(&world->pool[i]), &value);
        cr_assert_eq(err, world->pool[i].txn_id ? KV_OK : KV_NOT_FOUND);
        if (err == KV_OK)
            expect_row(&world->pool[i], value);
    }
}

/* From `from` on, at most `steps` keys. */
static void compare_walk(struct world *world, struct kv_slice from, size_t steps)
{
    struct kv_buf key = {0};
    struct kv_slice value;
    size_t at = 0;
    enum kv_err err = store_seek_key(world->store, from, &key, &value);
    for (; steps > 0; steps--, at++) {
        while (at < world->count &&
               (world->pool[at].txn_id == 0 || kv_slice_compare(key_slice(&world->pool[at]), from) < 0))
            at++;
        if (at == world->count)
            break;
        cr_assert_eq(err, KV_OK, "key %zu of %zu bytes is missed", at, world->pool[at].length);
        cr_assert(kv_slice_equal(kv_buf_peek(&key), key_slice(&world->pool[at])), "key %zu", at);
        expect_row(&world->pool[at], value);
        err = store_next_key(world->store, &key, &value);
    }
    if (steps > 0) {
        cr_assert_eq(err, KV_NOT_FOUND);
        cr_assert_eq(store_next_key(world->store, &key, &value), KV_NOT_FOUND, "and again");
    }
    kv_buf_free(&key);
}

/* Keys of the pool, and what lies close to them: shorter, longer, another byte. */
static void compare_seeks(struct world *world)
{
    struct pool_key near;
    for (unsigned i = 0; i < 150; i++) {
        near = world->pool[random_next(world) % world->count];
        switch (random_next(world) % 5) {
        case 0:
            near.length--;
            break;
        case 1:
            if (near.length < KV_KEY_BYTES_MAX)
                near.bytes[near.length++] = (uint8_t)(random_next(world) % 3);
            break;
        case 2:
            near.bytes[random_next(world) % near.length] ^= 0x01;
            break;
        case 3:
            near.length = boundaries[random_next(world) % 8] % near.length;
            break;
        default:
            break;
        }
        compare_walk(world, key_slice(&near), 5);
    }
}

static void compare_all(struct world *world)
{
    char why[256];
    cr_assert_eq(store_read_begin(world->store), KV_OK);
    compare_gets(world);
    compare_walk(world, kv_slice(NULL, 0), SIZE_MAX);
    compare_seeks(world);
    store_read_end(world->store);
    cr_assert_eq(store_check(world->store, why, sizeof why), KV_OK, "%s", why);
}

Test(longkey, agrees_with_a_sorted_array, .timeout = 600)
{
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct world world;
        world_init(&world, seed);
        for (unsigned round = 0; round < 8; round++) {
            change_some(&world, round % 2 ? 90 : 15);
            compare_all(&world);
        }
        world_free(&world);
    }
}

Test(longkey, deleting_everything_leaves_nothing)
{
    struct world world;
    world_init(&world, 77);
    for (unsigned round = 0; round < 3; round++) {
        struct overlay *overlay = overlay_new();
        for (size_t i = 0; i < world.count; i++)
            put_or_delete(&world, overlay, &world.pool[i], true);
        apply(&world, &overlay);
        compare_all(&world);
        overlay = overlay_new();
        for (size_t i = 0; i < world.count; i++)
            put_or_delete(&world, overlay, &world.pool[i], false);
        apply(&world, &overlay);
        compare_all(&world); /* store_check counts the records of both tables: there are none */
    }
    world_free(&world);
}

/* The place of a walk survives other reads. */
Test(longkey, gets_do_not_move_a_walk)
{
    struct world world;
    world_init(&world, 5);
    change_some(&world, 100);
    cr_assert_eq(store_read_begin(world.store), KV_OK);
    struct kv_buf key = {0}, before = {0};
    struct kv_slice value, ignored;
    uint64_t seen = 0;
    enum kv_err err = store_seek_key(world.store, kv_slice(NULL, 0), &key, &value);
    for (; err == KV_OK; err = store_next_key(world.store, &key, &value), seen++) {
        cr_assert(seen == 0 || kv_slice_compare(kv_buf_peek(&before), kv_buf_peek(&key)) < 0);
        before.bytes = 0;
        kv_buf_append(&before, kv_buf_peek(&key));
        store_get_key(world.store, key_slice(&world.pool[random_next(&world) % world.count]), &ignored);
    }
    cr_expect_eq(err, KV_NOT_FOUND);
    cr_expect_eq(seen, present(&world));
    kv_buf_free(&key);
    kv_buf_free(&before);
    store_read_end(world.store);
    world_free(&world);
}

/* A listing goes on behind a key with the next one that there can be: the key and a zero byte, even where that is too long. */
Test(longkey, a_seek_goes_on_behind_the_longest_key)
{
    struct world world;
    world_init(&world, 7);
    static uint8_t longest[2][KV_KEY_BYTES_MAX], behind[KV_KEY_BYTES_MAX + 1], space[ROW_KEY_BYTES_MAX];
    struct kv_row row = {.txn_id = 1};
    struct kv_slice value;
    struct kv_buf key = {0};
    struct overlay *overlay = overlay_new();
    longest[1][KV_KEY_BYTES_MAX - 1] = 1;
    for (size_t i = 0; i < 2; i++)
        overlay_put(overlay, OVERLAY_KEYS, kv_slice(longest[i], KV_KEY_BYTES_MAX), row_encode_key(&row, space), 0);
    apply(&world, &overlay);
    cr_assert_eq(store_read_begin(world.store), KV_OK);
    cr_assert_eq(store_seek_key(world.store, kv_slice(behind, sizeof behind), &key, &value), KV_OK);
    cr_expect(kv_slice_equal(kv_buf_peek(&key), kv_slice(longest[1], KV_KEY_BYTES_MAX)), "not the first one again");
    behind[KV_KEY_BYTES_MAX - 1] = 1;
    cr_expect_eq(store_seek_key(world.store, kv_slice(behind, sizeof behind), &key, &value), KV_NOT_FOUND);
    kv_buf_free(&key);
    store_read_end(world.store);
    world_free(&world);
}

Test(longkey, lengths_that_are_no_keys)
{
    struct world world;
    world_init(&world, 6);
    static uint8_t longer[KV_KEY_BYTES_MAX + 2];
    struct kv_slice value;
    struct kv_buf key = {0};
    cr_assert_eq(store_read_begin(world.store), KV_OK);
    cr_expect_eq(store_get_key(world.store, kv_slice(NULL, 0), &value), KV_NOT_FOUND);
    cr_expect_eq(store_get_key(world.store, kv_slice(longer, KV_KEY_BYTES_MAX + 1), &value), KV_NOT_FOUND);
    cr_expect_eq(store_seek_key(world.store, kv_slice(longer, sizeof longer), &key, &value), KV_INVALID);
    cr_expect_eq(store_seek_key(world.store, kv_slice(NULL, 0), &key, &value), KV_NOT_FOUND, "empty store");
    store_read_end(world.store);
    world_free(&world);
}
