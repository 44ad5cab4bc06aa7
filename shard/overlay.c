/* shard/overlay.c -- an ordered map per table: red-black trees over an arena.
 * Does:     finds, orders and replaces rows; libbsd's RB macros do the balancing. The first 8 bytes of a key stand in
 *           its node as a number, so that most comparisons on the way down touch no key bytes.
 * Owns:     one arena (overlay_arena.c) per generation. Node and key are one block, value the next: a new row lies
 *           together in memory, and overlay_free releases some dozen chunks instead of 100,000 rows.
 * Promises: a read changes nothing, so loop and applier may read a frozen generation at once. Replaced and forgotten
 *           blocks are used again; overlay_bytes counts what the arena has handed out at its highest, which is what the memory is.
 * Fails:    never; out of memory aborts.
 * Tests:    unit/shard/test_overlay.c. */
#include "overlay.h"

#include <bsd/sys/tree.h>
#include <endian.h>
#include <stdlib.h>

#include "kv/log.h"
#include "overlay_arena.h"

struct node {
    RB_ENTRY(node) entry;
    uint64_t prefix; /* first 8 key bytes as a big-endian number, short keys padded with zeros */
    struct overlay_row row;
    size_t value_capacity; /* bytes of the block behind row.value; 0 = none */
    uint8_t key[];
};

RB_HEAD(tree, node);

struct overlay {
    struct tree trees[OVERLAY_TABLES];
    struct overlay_arena arena;
    size_t rows;
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

static struct node *find(const struct overlay *overlay, enum overlay_table table, struct kv_slice key)
{
    struct probe probe = probe_of(key);
    struct node *at = RB_ROOT(&overlay->trees[table]);
    while (at) {
        int order = compare(&probe, at);
        if (order == 0)
            return at;
        at = order < 0 ? RB_LEFT(at, entry) : RB_RIGHT(at, entry);
    }
    return NULL;
}

struct overlay *overlay_new(void)
{
    struct overlay *overlay = kv_alloc_zero(1, sizeof *overlay);
    for (size_t table = 0; table < OVERLAY_TABLES; table++)
        RB_INIT(&overlay->trees[table]);
    return overlay;
}

void overlay_free(struct overlay **overlay)
{
    if (!*overlay)
        return;
    overlay_arena_free(&(*overlay)->arena);
    free(*overlay);
    *overlay = NULL;
}

const struct overlay_row *overlay_get(const struct overlay *overlay, enum overlay_table table, struct kv_slice key)
{
    const struct node *node = find(overlay, table, key);
    return node ? &node->row : NULL;
}

static struct node *insert(struct overlay *overlay, enum overlay_table table, struct kv_slice key)
{
    struct node *node = overlay_arena_take(&overlay->arena, sizeof *node + key.bytes);
    memset(node, 0, sizeof *node);
    if (key.bytes > 0)
        memcpy(node->key, key.data, key.bytes);
    node->row.key = kv_slice(node->key, key.bytes);
    node->prefix = probe_of(key).prefix;
    kv_assert(tree_RB_INSERT(&overlay->trees[table], node) == NULL);
    overlay->rows++;
    return node;
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
    struct node *node = find(overlay, table, key);
    if (!node)
        node = insert(overlay, table, key);
    set_value(overlay, node, value);
    node->row.tombstone = false;
    node->row.position = position;
}

void overlay_tombstone(struct overlay *overlay, enum overlay_table table, struct kv_slice key, uint64_t position)
{
    struct node *node = find(overlay, table, key);
    if (!node)
        node = insert(overlay, table, key);
    drop_value(overlay, node);
    node->row.tombstone = true;
    node->row.position = position;
}

void overlay_forget(struct overlay *overlay, enum overlay_table table, struct kv_slice key)
{
    struct node *node = find(overlay, table, key);
    if (!node)
        return;
    tree_RB_REMOVE(&overlay->trees[table], node);
    drop_value(overlay, node);
    overlay_arena_give(&overlay->arena, node, sizeof *node + node->row.key.bytes);
    overlay->rows--;
}

const struct overlay_row *overlay_seek(const struct overlay *overlay, enum overlay_table table, struct kv_slice from)
{
    struct probe probe = probe_of(from);
    const struct node *best = NULL;
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
    (void)overlay;
    (void)table; /* the node knows its neighbours */
    const struct node *node = tree_RB_NEXT((struct node *)(uintptr_t)node_of(row));
    return node ? &node->row : NULL;
}

size_t overlay_bytes(const struct overlay *overlay)
{
    return overlay->arena.bytes;
}

size_t overlay_rows(const struct overlay *overlay)
{
    return overlay->rows;
}
