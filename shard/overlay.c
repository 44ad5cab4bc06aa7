/* shard/overlay.c -- an ordered map per table: red-black trees over an arena, and one hash index over all of them.
 * Does:     finds rows by the index (overlay_index.c), since a way down a tree of 100,000 rows is a dozen cache misses and a
 *           write looks a dozen times; orders the rows of a table by a tree, for which libbsd's RB macros do the balancing, once
 *           somebody walks it, and from then on: listings do. The applier gets a sorted array instead. The first 8 bytes of a key
 *           stand in its node as a number, so that most comparisons touch no key bytes.
 * Owns:     one arena (overlay_arena.c) and one index per generation. Node and key are one block, value the next: a new row lies
 *           together in memory, and overlay_free releases some dozen chunks instead of 100,000 rows.
 * Promises: a read changes nothing, so loop and applier may read a frozen generation at once. Replaced and forgotten
 *           blocks are used again; overlay_bytes counts what arena and index have taken at their highest, which is what the
 *           memory is.
 * Fails:    never; out of memory aborts.
 * Tests:    unit/shard/test_overlay.c. */
#include "overlay.h"

#include <bsd/sys/tree.h>
#include <endian.h>
#include <stdlib.h>

#include "kv/limits.h"
#include "kv/log.h"
#include "overlay_arena.h"
#include "overlay_index.h"

struct node {
    RB_ENTRY(node) entry;
    enum overlay_table table;
    uint64_t prefix; /* first 8 key bytes as a big-endian number, short keys padded with zeros */
    struct overlay_row row;
    size_t value_capacity; /* bytes of the block behind row.value; 0 = none */
    uint8_t key[];
};

RB_HEAD(tree, node);

struct overlay {
    struct tree trees[OVERLAY_TABLES];
    bool is_walked[OVERLAY_TABLES]; /* else nothing is in the tree yet */
    size_t counts[OVERLAY_TABLES];
    struct overlay_arena arena;
    struct overlay_index index;
    size_t rows;
    size_t shared_bytes; /* that all keys of OVERLAY_KEYS begin with: contents and ids share nothing */
    uint8_t shared[KV_KEY_BYTES_MAX];
};

/* What a lookup needs of a key, so that the prefix is worked out once and not in every comparison. */
struct probe {
    struct kv_slice key;
    uint64_t prefix;
};

static struct probe probe_of(struct kv_slice key)
{
    uint64_t big = 0;
    if (key.bytes > 0)
        memcpy(&big, key.data, key.bytes < sizeof big ? key.bytes : sizeof big);
    return (struct probe){key, be64toh(big)};
}

/* Padding with zeros keeps the order: where prefixes differ they decide, where they agree the whole keys do. */
static int compare(const struct probe *probe, const struct node *node)
{
    if (probe->prefix != node->prefix)
        return probe->prefix < node->prefix ? -1 : 1;
    return kv_slice_compare(probe->key, node->row.key);
}

static int compare_nodes(const struct node *a, const struct node *b)
{
    struct probe probe = {a->row.key, a->prefix};
    return compare(&probe, b);
}

/* RB_GENERATE_STATIC needs a BSD spelling of the attribute that libbsd does not define here. */
RB_GENERATE_INTERNAL(tree, node, entry, compare_nodes, __attribute__((unused)) static)

static const struct node *node_of(const struct overlay_row *row)
{
    return (const struct node *)(const void *)((const char *)row - offsetof(struct node, row));
}

struct wanted {
    enum overlay_table table;
    struct kv_slice key;
    uint64_t hash;
};

static struct wanted wanted_of(enum overlay_table table, struct kv_slice key)
{
    return (struct wanted){table, key, overlay_index_hash(table, key)};
}

/* Where the index says that a row with this hash may be. */
static bool is_row(const void *wanted, const void *entry)
{
    const struct wanted *row = wanted;
    const struct node *node = entry;
    return node->table == row->table && kv_slice_equal(node->row.key, row->key);
}

static struct node *find(const struct overlay *overlay, const struct wanted *wanted)
{
    return overlay_index_get(&overlay->index, wanted->hash, is_row, wanted);
}

struct overlay *overlay_new(void)
{
    struct overlay *overlay = kv_alloc_zero(1, sizeof *overlay);
    for (size_t table = 0; table < OVERLAY_TABLES; table++)
        RB_INIT(&overlay->trees[table]);
    return overlay;
}

struct overlay *overlay_new_after(const struct overlay *before)
{
    struct overlay *overlay = overlay_new();
    memcpy(overlay->is_walked, before->is_walked, sizeof overlay->is_walked);
    return overlay;
}

void overlay_free(struct overlay **overlay)
{
    if (!*overlay)
        return;
    overlay_arena_free(&(*overlay)->arena);
    overlay_index_free(&(*overlay)->index);
    free(*overlay);
    *overlay = NULL;
}

const struct overlay_row *overlay_get(const struct overlay *overlay, enum overlay_table table, struct kv_slice key)
{
    struct wanted wanted = wanted_of(table, key);
    const struct node *node = find(overlay, &wanted);
    return node ? &node->row : NULL;
}

static void order(struct overlay *overlay, struct node *node)
{
    struct node *same = tree_RB_INSERT(&overlay->trees[node->table], node);
    kv_assert(same == NULL);
}

struct sorted {
    uint64_t prefix; /* eight bytes behind what all keys share */
    const struct overlay_row *row;
};

/* Of equal prefixes. */
static int compare_sorted(const void *a, const void *b)
{
    const struct sorted *left = a, *right = b;
    return kv_slice_compare(left->row->key, right->row->key);
}

enum { DIGITS = sizeof(uint64_t), DIGIT_VALUES = 256 };

static uint8_t digit_of(const struct sorted *row, unsigned digit)
{
    return (uint8_t)(row->prefix >> 8 * digit);
}

/* Sorts by prefix, digit by digit from the last: a few passes over memory instead of a comparison for each step of a merge. The
 * result is in one of the two arrays. */
static struct sorted *sort_by_prefix(struct sorted *rows, struct sorted *spare, size_t count)
{
    size_t places[DIGITS][DIGIT_VALUES] = {{0}};
    for (size_t i = 0; i < count; i++)
        for (unsigned digit = 0; digit < DIGITS; digit++)
            places[digit][digit_of(&rows[i], digit)]++;
    for (unsigned digit = 0; digit < DIGITS; digit++) {
        size_t *place = places[digit], at = 0;
        if (place[digit_of(&rows[0], digit)] == count)
            continue; /* all have the same */
        for (unsigned value = 0; value < DIGIT_VALUES; value++) {
            size_t rows_of_value = place[value];
            place[value] = at;
            at += rows_of_value;
        }
        for (size_t i = 0; i < count; i++)
            spare[place[digit_of(&rows[i], digit)]++] = rows[i];
        struct sorted *swapped = rows;
        rows = spare;
        spare = swapped;
    }
    return rows;
}

static void sort_ties(struct sorted *rows, size_t count)
{
    for (size_t from = 0, to; from < count; from = to) {
        for (to = from + 1; to < count && rows[to].prefix == rows[from].prefix;)
            to++;
        if (to - from > 1)
            qsort(rows + from, to - from, sizeof *rows, compare_sorted);
    }
}

static struct sorted sorted_of(const struct node *node, size_t shared)
{
    struct kv_slice key = node->row.key;
    uint64_t prefix = shared == 0 ? node->prefix : probe_of(kv_slice(key.data + shared, key.bytes - shared)).prefix;
    return (struct sorted){prefix, &node->row};
}

/* Through the index, which holds every row, ordered or not. */
static void collect_rows(const struct overlay *overlay, enum overlay_table table, struct sorted *out)
{
    size_t found = 0, shared = table == OVERLAY_KEYS ? overlay->shared_bytes : 0;
    for (size_t i = 0; i < overlay->index.slot_count; i++) {
        const struct overlay_slot *slot = &overlay->index.slots[i];
        if (overlay->index.tags[i] != 0 && overlay_index_table(slot->hash) == table)
            out[found++] = sorted_of(slot->entry, shared);
    }
    kv_assert(found == overlay->counts[table]);
}

const struct overlay_row **overlay_sorted(const struct overlay *overlay, enum overlay_table table, size_t *count)
{
    size_t found = overlay->counts[table];
    struct sorted *space = kv_alloc(2 * found * sizeof *space);
    const struct overlay_row **rows = kv_alloc(found * sizeof *rows);
    collect_rows(overlay, table, space);
    struct sorted *sorted = found == 0 ? space : sort_by_prefix(space, space + found, found);
    sort_ties(sorted, found);
    for (size_t i = 0; i < found; i++)
        rows[i] = sorted[i].row;
    free(space);
    *count = found;
    return rows;
}

/* Who walks a table is alone with its order: the links that change here are not what overlay_get and overlay_sorted look at.
 * Rows that come sorted enter the tree at its end, which is near. */
static void order_all(const struct overlay *overlay, enum overlay_table table)
{
    struct overlay *mine = (struct overlay *)(uintptr_t)overlay;
    size_t count;
    if (overlay->is_walked[table])
        return;
    const struct overlay_row **rows = overlay_sorted(overlay, table, &count);
    for (size_t i = 0; i < count; i++)
        order(mine, (struct node *)(uintptr_t)node_of(rows[i]));
    mine->is_walked[table] = true;
    free(rows);
}

/* What all of them begin with. */
static void share(struct overlay *overlay, struct kv_slice key)
{
    size_t shared = 0;
    if (overlay->counts[OVERLAY_KEYS] == 0) {
        overlay->shared_bytes = key.bytes < sizeof overlay->shared ? key.bytes : sizeof overlay->shared;
        memcpy(overlay->shared, key.data, overlay->shared_bytes);
    }
    while (shared < overlay->shared_bytes && shared < key.bytes && overlay->shared[shared] == key.data[shared])
        shared++;
    overlay->shared_bytes = shared;
}

static struct node *insert(struct overlay *overlay, const struct wanted *wanted)
{
    enum overlay_table table = wanted->table;
    struct kv_slice key = wanted->key;
    struct node *node = overlay_arena_take(&overlay->arena, sizeof *node + key.bytes);
    memset(node, 0, sizeof *node);
    if (key.bytes > 0)
        memcpy(node->key, key.data, key.bytes);
    node->row.key = kv_slice(node->key, key.bytes);
    node->table = table;
    node->prefix = probe_of(key).prefix;
    overlay_index_add(&overlay->index, wanted->hash, node);
    if (table == OVERLAY_KEYS)
        share(overlay, key);
    if (overlay->is_walked[table])
        order(overlay, node);
    overlay->counts[table]++;
    overlay->rows++;
    if (overlay->counts[OVERLAY_KEYS] > OVERLAY_UNORDERED_MAX)
        order_all(overlay, OVERLAY_KEYS);
    return node;
}

static struct node *find_or_insert(struct overlay *overlay, enum overlay_table table, struct kv_slice key)
{
    struct wanted wanted = wanted_of(table, key);
    struct node *node = find(overlay, &wanted);
    return node ? node : insert(overlay, &wanted);
}

static void drop_value(struct overlay *overlay, struct node *node)
{
    if (node->value_capacity > 0)
        overlay_arena_give(&overlay->arena, (void *)(uintptr_t)node->row.value.data, node->value_capacity);
    node->value_capacity = 0;
    node->row.value = kv_slice(NULL, 0);
}

/* The new value may borrow from the old one: it is copied before the old block is given back. */
static void set_value(struct overlay *overlay, struct node *node, struct kv_slice value)
{
    if (value.bytes > 0 && value.bytes <= node->value_capacity) {
        memmove((void *)(uintptr_t)node->row.value.data, value.data, value.bytes);
        node->row.value.bytes = value.bytes;
        return;
    }
    uint8_t *block = NULL;
    if (value.bytes > 0) {
        block = overlay_arena_take(&overlay->arena, value.bytes);
        memcpy(block, value.data, value.bytes);
    }
    drop_value(overlay, node);
    node->row.value = kv_slice(block, value.bytes);
    node->value_capacity = value.bytes;
}

void overlay_put(struct overlay *overlay, enum overlay_table table, struct kv_slice key, struct kv_slice value,
                 uint64_t position)
{
    struct node *node = find_or_insert(overlay, table, key);
    set_value(overlay, node, value);
    node->row.tombstone = false;
    node->row.position = position;
}

void overlay_tombstone(struct overlay *overlay, enum overlay_table table, struct kv_slice key, uint64_t position)
{
    struct node *node = find_or_insert(overlay, table, key);
    drop_value(overlay, node);
    node->row.tombstone = true;
    node->row.position = position;
}

void overlay_forget(struct overlay *overlay, enum overlay_table table, struct kv_slice key)
{
    struct wanted wanted = wanted_of(table, key);
    struct node *node = find(overlay, &wanted);
    if (!node)
        return;
    if (overlay->is_walked[table])
        tree_RB_REMOVE(&overlay->trees[table], node);
    overlay->counts[table]--;
    overlay_index_remove(&overlay->index, wanted.hash, node);
    drop_value(overlay, node);
    overlay_arena_give(&overlay->arena, node, sizeof *node + node->row.key.bytes);
    overlay->rows--;
}

const struct overlay_row *overlay_seek(const struct overlay *overlay, enum overlay_table table, struct kv_slice from)
{
    struct probe probe = probe_of(from);
    const struct node *best = NULL;
    order_all(overlay, table);
    const struct node *at = RB_ROOT(&overlay->trees[table]);
    while (at) {
        int order = compare(&probe, at);
        if (order == 0)
            return &at->row;
        if (order < 0)
            best = at;
        at = order < 0 ? RB_LEFT(at, entry) : RB_RIGHT(at, entry);
    }
    return best ? &best->row : NULL;
}

const struct overlay_row *overlay_next(const struct overlay *overlay, enum overlay_table table,
                                       const struct overlay_row *row)
{
    kv_assert(overlay->is_walked[table]);
    const struct node *node = tree_RB_NEXT((struct node *)(uintptr_t)node_of(row));
    return node ? &node->row : NULL;
}

void overlay_trim(void)
{
    overlay_arena_trim();
}

size_t overlay_bytes(const struct overlay *overlay)
{
    return overlay->arena.bytes + overlay_index_bytes(&overlay->index);
}

size_t overlay_rows(const struct overlay *overlay)
{
    return overlay->rows;
}

size_t overlay_rows_of(const struct overlay *overlay, enum overlay_table table)
{
    return overlay->counts[table];
}
