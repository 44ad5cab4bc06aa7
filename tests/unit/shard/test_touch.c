/* Goal: what touch.h finds on its own way is what LMDB finds, and damaged pages lead it nowhere else than to its end.
 * Method: a store of some megabytes; its file is read into memory of exactly that size, where the address sanitizer sees each byte
 * that is read outside of it, and spoiled there at random. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core_internal.h"
#include "kv/placement.h"
#include "rows.h"
#include "serve_internal.h"
#include "store_internal.h"
#include "touch.h"
#include "wire/frame.h"
#include "wire/messages.h"

#define KEYS 60000u
#define KEY_BYTES 24u

static const struct store_identity identity = {1, 2, "0123456789abcdef0123456789abcdef"};

struct place {
    char path[64];
    struct store *store;
};

static struct kv_slice key_of(uint64_t n, char space[KEY_BYTES])
{
    return kv_slice(space, (size_t)snprintf(space, KEY_BYTES, "key-%llu", (unsigned long long)(n * 7919 % 1000003)));
}

static struct kv_hash hash_of(uint64_t n)
{
    struct kv_hash hash;
    for (size_t i = 0; i < KV_HASH_BYTES; i++)
        hash.bytes[i] = (uint8_t)((n + 1) * 0x9e3779b97f4a7c15u >> (i * 5 % 57));
    memcpy(hash.bytes + 20, &n, sizeof n);
    return hash;
}

static void put(struct overlay *overlay, uint64_t n)
{
    static const uint8_t content[100];
    char key_space[KEY_BYTES];
    uint8_t space[ROW_KEY_BYTES_MAX];
    struct kv_hash hash = hash_of(n);
    struct kv_row row = {.hash = hash, .size = 100, .txn_id = n + 1};
    struct kv_object object = {
        .size = 100, .stored_bytes = sizeof content, .refs = 1, .bytes = kv_slice(content, sizeof content)};
    overlay_put(overlay, OVERLAY_KEYS, key_of(n, key_space), row_encode_key(&row, space), 0);
    overlay_put(overlay, OVERLAY_OBJECTS, kv_hash_slice(&hash), row_encode_object(&object, space), 0);
}

static void place_init(struct place *place, unsigned keys)
{
    char why[256];
    struct overlay *overlay = overlay_new();
    struct store_meta meta = {.position = 1, .object_id_next = 1, .keys = keys, .objects = keys};
    snprintf(place->path, sizeof place->path, "/tmp/kv-touch-XXXXXX");
    cr_assert_not_null(mkdtemp(place->path));
    cr_assert_eq(store_open(place->path, 1u << 30, false, &identity, why, sizeof why, &place->store), KV_OK, "%s", why);
    for (uint64_t n = 0; n < keys; n++)
        put(overlay, n);
    cr_assert_eq(store_apply(place->store, overlay, &meta, NULL, 0, 0), KV_OK);
    overlay_free(&overlay);
    cr_assert_eq(store_read_begin(place->store), KV_OK);
}

static void place_free(struct place *place)
{
    char command[128];
    store_read_end(place->store);
    store_close(&place->store);
    snprintf(command, sizeof command, "rm -rf %s", place->path);
    cr_assert_eq(system(command), 0);
}

static struct touch_tree tree_of(struct place *place, enum store_table table)
{
    struct touch_tree tree;
    uint64_t pages;
    cr_assert_eq(txn_tree(place->store->reader, table, &tree, &pages), KV_OK);
    cr_assert_gt(tree.depth, 1u);
    return tree;
}

/* Every row of the table, and as many keys that are beside them. */
Test(touch, it_finds_what_lmdb_finds)
{
    struct place place;
    place_init(&place, KEYS);
    struct touch_tree keys_tree = tree_of(&place, STORE_KEYS), objects_tree = tree_of(&place, STORE_OBJECTS);
    for (uint64_t n = 0; n < 2 * KEYS; n += TOUCH_ROWS_MAX / 2) {
        char spaces[TOUCH_ROWS_MAX][KEY_BYTES];
        struct kv_hash hashes[TOUCH_ROWS_MAX];
        struct kv_slice keys[TOUCH_ROWS_MAX], contents[TOUCH_ROWS_MAX], rows[TOUCH_ROWS_MAX], expected;
        size_t count = 1 + n % TOUCH_ROWS_MAX;
        for (size_t i = 0; i < count; i++) {
            hashes[i] = hash_of(n + i);
            keys[i] = key_of(n + i, spaces[i]);
            contents[i] = kv_hash_slice(&hashes[i]);
        }
        touch_rows(&keys_tree, keys, count, rows);
        for (size_t i = 0; i < count; i++) {
            bool found = store_get_key(place.store, keys[i], &expected) == KV_OK;
            cr_assert_eq(found, n + i < KEYS);
            cr_assert(found ? rows[i].data == expected.data && rows[i].bytes == expected.bytes : rows[i].bytes == 0);
        }
        touch_rows(&objects_tree, contents, count, rows);
        for (size_t i = 0; i < count; i++) {
            bool found = store_get_object(place.store, &hashes[i], &expected) == KV_OK;
            cr_assert_eq(found, n + i < KEYS);
            cr_assert(found ? rows[i].data == expected.data && rows[i].bytes == expected.bytes : rows[i].bytes == 0);
        }
    }
    place_free(&place);
}

Test(touch, keys_of_any_kind)
{
    struct place place;
    static const char longest[KV_KEY_BYTES_MAX] = "key-";
    static const char *const names[] = {"", "a", "key-", "z", "\xff\xff"};
    struct kv_slice keys[6], rows[6];
    place_init(&place, KEYS);
    struct touch_tree tree = tree_of(&place, STORE_KEYS);
    for (size_t i = 0; i < 5; i++)
        keys[i] = kv_slice_text(names[i]);
    keys[5] = kv_slice(longest, sizeof longest);
    touch_rows(&tree, keys, 6, rows);
    for (size_t i = 0; i < 6; i++)
        cr_expect_eq(rows[i].bytes, 0, "key %zu", i);
    touch_rows(&tree, keys, 0, rows);
    place_free(&place);
}

/* A group of keys comes near with those of their contents that are here; what is small is left alone. */
Test(touch, contents_follow_their_keys)
{
    struct place place, small;
    char spaces[TOUCH_ROWS_MAX][KEY_BYTES];
    struct kv_slice keys[TOUCH_ROWS_MAX], objects[TOUCH_ROWS_MAX];
    struct kv_hash hashes[TOUCH_ROWS_MAX];
    size_t contents = 0;
    place_init(&place, KEYS);
    place_init(&small, 100);
    for (uint64_t n = 0; n < TOUCH_ROWS_MAX; n++) {
        hashes[n] = hash_of(n);
        objects[n] = kv_hash_slice(&hashes[n]);
        keys[n] = key_of(n < 30 ? n : n + KEYS, spaces[n]);
        contents += n < 30 && kv_shard_of(kv_hash_slice(&hashes[n]), 2) == 1;
    }
    cr_assert(contents > 1 && contents < 30);
    cr_expect_eq(store_touch_reads(place.store, keys, TOUCH_ROWS_MAX), 30 + contents);
    cr_expect_eq(store_touch_keys(place.store, keys, TOUCH_ROWS_MAX), 30);
    cr_expect_eq(store_touch_objects(place.store, objects, TOUCH_ROWS_MAX), TOUCH_ROWS_MAX);
    cr_expect_eq(store_touch_objects(place.store, objects, 1), 0, "it has nobody to wait with");
    cr_expect_eq(store_touch_reads(small.store, keys, TOUCH_ROWS_MAX), 0);
    place_free(&place);
    place_free(&small);
}

/* A shard that has this store, and nothing else yet. */
static struct serve *serve_of(struct place *place)
{
    static const struct core_options options = {.shard_index = 1, .shard_count = 2, .overlay_bytes_max = 1u << 30};
    static const struct core_world world;
    static const struct store_meta meta = {.object_id_next = 1};
    struct serve *serve = kv_alloc_zero(1, sizeof *serve);
    serve->on.store = place->store;
    serve->on.core = core_new(&options, &world, &meta);
    return serve;
}

static void serve_end(struct serve *serve)
{
    core_free(&serve->on.core);
    free(serve);
}

/* The group is larger than what goes together; what is no read, and what has come in part only, is passed over. */
Test(touch, reads_that_came_together)
{
    enum { READS = 75, OPENS = 50 };
    struct place place;
    struct kv_buf frames = {0};
    char space[KEY_BYTES];
    size_t contents = 0, of_last = 0, begin;
    place_init(&place, KEYS);
    struct serve *serve = serve_of(&place);
    for (uint64_t n = 0; n < READS; n++) {
        struct kv_hash hash = hash_of(n);
        begin = kv_frame_begin(&frames, KV_MSG_READ, n);
        kv_put_read(&frames, &(struct kv_msg_read){key_of(n, space), 100});
        kv_frame_end(&frames, begin);
        of_last = 1 + (kv_shard_of(kv_hash_slice(&hash), 2) == 1);
        contents += of_last - 1;
        if (n >= OPENS)
            continue;
        begin = kv_frame_begin(&frames, KV_MSG_OPEN, n);
        kv_put_open(&frames, &(struct kv_msg_open){.hash = hash, .bytes_max = 100});
        kv_frame_end(&frames, begin);
        begin = kv_frame_begin(&frames, KV_MSG_COMMIT, n);
        kv_put_id(&frames, n);
        kv_frame_end(&frames, begin);
    }
    cr_expect_eq(serve_touch(serve, kv_buf_peek(&frames)), READS + contents + OPENS);
    cr_expect_eq(serve_touch(serve, kv_slice(frames.data, frames.bytes - 1)), READS + contents + OPENS - of_last);
    kv_buf_free(&frames);
    serve_end(serve);
    place_free(&place);
}

/* The `count` keys from `n` on. */
static void put_lock(struct kv_buf *frames, uint64_t n, size_t count)
{
    char space[KEY_BYTES];
    size_t begin = kv_frame_begin(frames, KV_MSG_LOCK, n);
    kv_put_lock_begin(frames, n + 1, count);
    for (size_t i = 0; i < count; i++)
        kv_put_key(frames, key_of(n + i, space));
    kv_frame_end(frames, begin);
}

/* For each of the `count` keys from `n` on: it is set, its content dropped, and a new one added. */
static void put_prepare(struct kv_buf *frames, enum kv_msg type, uint64_t n, size_t count)
{
    char space[KEY_BYTES];
    size_t begin = kv_frame_begin(frames, type, n);
    kv_put_prepare_begin(frames, n + 1, 1, 3 * count);
    for (size_t i = 0; i < count; i++) {
        struct kv_op set = {.kind = KV_OP_SET, .key = key_of(n + i, space), .expect_txn = n + i + 1};
        struct kv_op drop = {.kind = KV_OP_DROP, .hash = hash_of(n + i), .count = 1};
        struct kv_op add = {.kind = KV_OP_ADD, .hash = hash_of(KEYS + n + i), .count = 1, .size = 1};
        kv_put_op(frames, &set);
        kv_put_op(frames, &drop);
        kv_put_op(frames, &add);
    }
    kv_frame_end(frames, begin);
}

/* Keys that are locked, without their contents; keys that are set without a lock, and old contents, of many transactions and of one
 * large one. */
Test(touch, writes_that_came_together)
{
    enum { LOCKS = 40, KEYS_OF_ONE = 70, PREPARES = 45, OPS_OF_ONE = 100 };
    struct place place;
    struct kv_buf frames = {0};
    place_init(&place, KEYS);
    struct serve *serve = serve_of(&place);
    for (uint64_t n = 0; n < LOCKS; n++)
        put_lock(&frames, n, 1);
    put_lock(&frames, KEYS - KEYS_OF_ONE + 2, KEYS_OF_ONE); /* two are new */
    for (uint64_t n = 0; n < PREPARES; n++)
        put_prepare(&frames, n % 2 == 0 ? KV_MSG_PREPARE : KV_MSG_APPLY, n, 1);
    put_prepare(&frames, KV_MSG_PREPARE, PREPARES, OPS_OF_ONE);
    cr_expect_eq(serve_touch(serve, kv_buf_peek(&frames)), LOCKS + KEYS_OF_ONE - 2 + 2 * (PREPARES + OPS_OF_ONE));
    kv_buf_free(&frames);
    serve_end(serve);
    place_free(&place);
}

/* LMDB is not asked for what waits to be applied, of either generation; nor for keys that a lock remembers. */
Test(touch, what_is_in_memory_is_not_looked_for_elsewhere)
{
    enum { PREPARES = 30, FROZEN = 7, ACTIVE = 5, LOCKED = 3 };
    struct place place;
    struct kv_buf frames = {0};
    char space[KEY_BYTES];
    place_init(&place, KEYS);
    struct serve *serve = serve_of(&place);
    struct core *core = serve->on.core;
    struct ledger *ledger = &core->ledger;
    for (uint64_t n = 0; n < FROZEN; n++)
        put(ledger->active, n);
    struct core_generation *frozen = core_freeze(core);
    for (uint64_t n = FROZEN; n < FROZEN + ACTIVE; n++)
        put(ledger->active, n);
    for (uint64_t n = PREPARES - LOCKED; n < PREPARES; n++) {
        locks_take_for_intent(core->locks, n + 1, key_of(n, space), true);
        locks_set_version(core->locks, key_of(n, space), n + 1);
    }
    for (uint64_t n = 0; n < PREPARES; n++)
        put_prepare(&frames, KV_MSG_PREPARE, n, 1);
    cr_expect_eq(serve_touch(serve, kv_buf_peek(&frames)), 2 * (PREPARES - FROZEN - ACTIVE) - LOCKED);
    core_generation_free(&frozen);
    kv_buf_free(&frames);
    serve_end(serve);
    place_free(&place);
}

/* More COMMITs than go together, and one of a transaction that is not known: LMDB is not asked, and nothing is changed. */
Test(touch, commits_that_came_together)
{
    enum { COMMITS = 50 };
    struct place place;
    struct kv_buf frames = {0};
    place_init(&place, KEYS);
    struct serve *serve = serve_of(&place);
    struct core *core = serve->on.core;
    for (uint64_t n = 0; n <= COMMITS; n++) {
        char space[KEY_BYTES];
        struct kv_op ops[] = {{.kind = KV_OP_SET, .key = key_of(n, space)}, {.kind = KV_OP_DROP, .hash = hash_of(n)}};
        struct kv_msg_prepare prepare = {.txn_id = n + 1, .participants = 3, .ops = {ops, 2, 2}};
        if (n < COMMITS)
            intents_add(&core->intents, &prepare, 0, kv_slice(NULL, 0));
        size_t begin = kv_frame_begin(&frames, KV_MSG_COMMIT, n);
        kv_put_id(&frames, n + 1);
        kv_frame_end(&frames, begin);
    }
    cr_expect_eq(serve_touch(serve, kv_buf_peek(&frames)), 0);
    cr_expect_eq(HASH_COUNT(core->intents.open), COMMITS);
    cr_expect_eq(core_voted(core, COMMITS)->count, 2);
    cr_expect_null(core_voted(core, COMMITS + 1));
    kv_buf_free(&frames);
    serve_end(serve);
    place_free(&place);
}

static uint8_t *read_file(const struct place *place, size_t *bytes)
{
    char path[96];
    struct stat file;
    snprintf(path, sizeof path, "%s/data.mdb", place->path);
    int fd = open(path, O_RDONLY);
    cr_assert_eq(fstat(fd, &file), 0);
    *bytes = (size_t)file.st_size;
    uint8_t *copy = kv_alloc(*bytes);
    cr_assert_eq(read(fd, copy, *bytes), file.st_size);
    close(fd);
    return copy;
}

static uint64_t draw(uint64_t below)
{
    static uint64_t state = 7;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % below;
}

/* Heads of pages and of nodes are what leads elsewhere: half of the damage goes there. */
static void spoil(uint8_t *map, size_t bytes, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        size_t at = draw(bytes);
        if (i % 2 == 0)
            at = at / LMDB_PAGE_BYTES * LMDB_PAGE_BYTES + draw(32);
        map[at] = i % 3 == 0 ? 0xff : (uint8_t)draw(256);
    }
}

Test(touch, damage_leads_nowhere)
{
    struct place place;
    size_t bytes, found = 0, lost = 0;
    place_init(&place, KEYS);
    struct touch_tree tree = tree_of(&place, STORE_OBJECTS);
    uint8_t *map = read_file(&place, &bytes);
    tree.map = map;
    tree.page_count = bytes / LMDB_PAGE_BYTES;
    for (uint64_t round = 0; round < 2000; round++) {
        struct kv_hash hashes[TOUCH_ROWS_MAX];
        struct kv_slice keys[TOUCH_ROWS_MAX], rows[TOUCH_ROWS_MAX];
        for (size_t i = 0; i < TOUCH_ROWS_MAX; i++) {
            hashes[i] = hash_of(draw(KEYS));
            keys[i] = kv_hash_slice(&hashes[i]);
        }
        touch_rows(&tree, keys, TOUCH_ROWS_MAX, rows);
        for (size_t i = 0; i < TOUCH_ROWS_MAX; i++) {
            uint8_t sum = 0;
            for (size_t j = 0; j < rows[i].bytes; j++)
                sum ^= rows[i].data[j]; /* all of it may be read */
            found += rows[i].bytes > 0;
            lost += rows[i].bytes == 0 || sum == 1;
        }
        spoil(map, bytes, 60);
    }
    cr_expect_gt(found, 1000);
    cr_expect_gt(lost, 1000);
    free(map);
    place_free(&place);
}

/* A page that leads to itself: no deeper than the tree is. */
Test(touch, a_circle_ends)
{
    static _Alignas(LMDB_PAGE_BYTES) uint8_t map[LMDB_PAGE_BYTES];
    static const uint16_t head[] = {0, 0, 0, 0, 0, 1 /* branch */, 18, 0, 64 /* one node */};
    struct touch_tree tree = {.map = map, .page_count = 1, .root = 0, .depth = 1000};
    struct kv_slice key = kv_slice_text("key"), row;
    memcpy(map, head, sizeof head);
    touch_rows(&tree, &key, 1, &row);
    cr_expect_eq(row.bytes, 0);
    tree.root = 1;
    touch_rows(&tree, &key, 1, &row);
    cr_expect_eq(row.bytes, 0, "a page that is not there");
}
